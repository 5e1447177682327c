"""Which rows their processes died of: deaths counted per row, until a row is quarantined."""

from collections import Counter

from actors.attempts import Marker
from schemas.record import ErrorClass, RowError, Status

_MAX_ALONE = 3
_MAX_WITH_NODE = 5


class Deaths:
    """The deaths that one driver saw. What died with a driver or with all of Ray was never seen, and never counts."""

    def __init__(self) -> None:
        self._alone: Counter[str] = Counter()
        self._with_node: Counter[str] = Counter()

    def count(self, marker: Marker, *, alone: bool, node_lives: bool) -> RowError | None:
        """Counts the death of the process that left a row's marker; the row's error once it is quarantined.

        A death among other rows says nothing yet, and one together with its node only when it happens often.
        """
        record_id = marker["record_id"]
        if not node_lives:
            self._with_node[record_id] += 1
            if self._with_node[record_id] >= _MAX_WITH_NODE:
                what = f"the node that rendered this row died {_MAX_WITH_NODE} times"
                return _quarantine(ErrorClass.NODE_DIED, what, marker)
        elif alone:
            self._alone[record_id] += 1
            if self._alone[record_id] >= _MAX_ALONE:
                what = f"the process that rendered this row and nothing else died {_MAX_ALONE} times"
                return _quarantine(
                    ErrorClass(marker.get("error_class", ErrorClass.PROCESS_DIED)), what, marker
                )
        return None


def _quarantine(error_class: ErrorClass, what: str, marker: Marker) -> RowError:
    how = marker.get("error", "it said nothing before it ended (a crash, or killed from outside)")
    where = f"attempt {marker['attempt']}, node {marker.get('node')}, pid {marker.get('pid')}"
    return RowError(error_class, f"{what}; the last time ({where}): {how}", Status.QUARANTINED)
