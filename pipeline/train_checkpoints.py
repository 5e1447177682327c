"""The checkpoints of a run. Its folder alone tells which there are.

Ray Train keeps a list of its own beside them, and it is not asked: it names a checkpoint some time after the
upload, so that a run killed in between would begin again, and a list that was being written when the run was
killed keeps it from starting at all.
"""

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

from actors.storage import Storage, join, redact
from pipeline.train_state import STATE_FILE
from schemas.run import InfrastructureError
from schemas.train_run import TrainRun

CHECKPOINTS = "checkpoints"
_STATE = re.compile(rf"/step-(\d+)/{re.escape(STATE_FILE)}$")


def checkpoint_name(step: int) -> str:
    """The folder of a step's checkpoint, below `CHECKPOINTS`."""
    return f"step-{step:08d}"


class Checkpoints:
    """The folder `checkpoints/` of a run's output.

    Every method raises a StorageError or InfrastructureError where the storage fails.
    """

    def __init__(self, storage: Storage, run: TrainRun):
        self._storage = storage
        self._root = join(run.output, CHECKPOINTS)
        self._keep = run.keep_checkpoints

    def newest_step(self) -> int | None:
        """The step of the newest whole checkpoint; what an upload that was cut off has left is none."""
        return next((step for step in reversed(self._steps()) if self._is_whole(step)), None)

    def save(self, folder: Path, step: int) -> None:
        """Uploads a step's checkpoint, and deletes all others but the newest ones before it."""
        self._storage.upload(folder / STATE_FILE, self._uri(step, STATE_FILE))
        steps = self._steps()
        # Those of later steps cannot be whole: the run would have gone on from them.
        kept = [other for other in steps if other <= step][-self._keep :]
        for other in set(steps) - set(kept):
            filesystem, path = self._storage.arrow_filesystem(self._uri(other))
            with _as_infrastructure_error(self._uri(other)):
                filesystem.delete_dir(path)

    def delete_list_of_ray(self) -> None:
        """Lets Ray Train begin without its list of earlier checkpoints."""
        self._storage.delete(join(self._root, CHECKPOINT_MANAGER_SNAPSHOT_FILENAME))

    def _uri(self, step: int, *names: str) -> str:
        return join(self._root, checkpoint_name(step), *names)

    def _steps(self) -> list[int]:
        found = (_STATE.search(stat.uri) for stat in self._storage.list(self._root))
        return sorted(int(state[1]) for state in found if state)

    def _is_whole(self, step: int) -> bool:
        """PyTorch writes ZIP files, whose directory comes last: the beginning of one is none."""
        uri = self._uri(step, STATE_FILE)
        filesystem, path = self._storage.arrow_filesystem(uri)
        try:
            with (
                _as_infrastructure_error(uri),
                filesystem.open_input_file(path) as file,
                zipfile.ZipFile(file),
            ):
                return True
        except (zipfile.BadZipFile, ValueError):  # the latter for less than a directory takes
            return False


@contextmanager
def _as_infrastructure_error(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InfrastructureError(f"{redact(uri)}: cannot be accessed: {error}") from error
