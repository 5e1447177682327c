"""What an output already holds, as the plan needs to know it."""

from dataclasses import dataclass, field

from actors.commits import CommitStore
from schemas.record import ErrorClass, Status

# Failures that say nothing of the row: a slow network, a host that is down.
_PASSING = {ErrorClass.ASSET_TIMEOUT, ErrorClass.ASSET_UNAVAILABLE}


@dataclass
class CommitIndex:
    """The commits of an output by record and by video."""

    key_of_record: dict[str, str | None] = field(default_factory=dict)
    status_of_record: dict[str, str] = field(default_factory=dict)
    record_of_video: dict[str, str] = field(
        default_factory=dict
    )  # row_key -> a record whose video is finished

    def is_done(self, record_id: str, row_key: str | None) -> bool:
        """Whether this very video (or this very failure to plan one) is committed for the record."""
        return record_id in self.key_of_record and self.key_of_record[record_id] == row_key


def read_commit_index(commits: CommitStore) -> CommitIndex:
    """The index of everything committed so far."""
    index = CommitIndex()
    for record in commits.all():
        if record["error_class"] in _PASSING:
            continue  # its row is tried again
        index.key_of_record[record["record_id"]] = record["row_key"]
        index.status_of_record[record["record_id"]] = record["status"]
        if record["status"] == Status.OK:
            index.record_of_video[record["row_key"]] = record["record_id"]
    return index
