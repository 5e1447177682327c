"""The product with one promise broken on purpose: a suite that stays green with one of these proves nothing.

A mutation is chosen with `--mutate NAME` and patched into the processes of a life by the hooks.
"""

import os
from typing import Any

from benchmarks.faults.hooks import patch

VARIABLE = "FAULTS_MUTATION"


def mutate() -> None:
    """Breaks in this process what the environment names."""
    if name := os.environ.get(VARIABLE):
        MUTATIONS[name]()


def _no_commit() -> None:
    """An actor's finished videos are not committed."""
    from actors.commits import CommitStore

    def write(original: Any, commits: Any, record: dict[str, Any]) -> None:
        if record["status"] != "ok":
            original(commits, record)

    patch(CommitStore, "write", write)


def _commit_first() -> None:
    """A video is uploaded only after its record is committed."""
    from actors.commits import CommitStore
    from actors.storage import Storage

    waiting: dict[str, tuple[Any, bytes]] = {}

    def upload(original: Any, storage: Any, local_path: Any, uri: str) -> None:
        with open(local_path, "rb") as file:  # noqa: PTH123 - a str or a Path
            waiting[uri] = (storage, file.read())

    def write(original: Any, commits: Any, record: dict[str, Any]) -> None:
        original(commits, record)
        if found := waiting.pop(record["video_uri"] or "", None):
            found[0].write_bytes(record["video_uri"], found[1])

    patch(CommitStore, "write", write)
    patch(Storage, "upload", upload)


def _no_verification() -> None:
    """A video that lies under a row's name is adopted unseen."""
    import actors.publisher
    from actors.video_codec import VideoInfo

    def verify(original: Any, path: Any, num_frames: int, height: int, width: int) -> VideoInfo:
        return VideoInfo(num_frames, height, width, 8.0, num_frames / 8, path.stat().st_size)

    def decode(original: Any, path: Any, num_frames: int, height: int, width: int) -> Any:
        import numpy as np

        return np.zeros((num_frames, height, width, 3), np.uint8)

    patch(actors.publisher, "verify_mp4", verify)
    patch(actors.publisher, "decode_mp4", decode)


def _no_adoption() -> None:
    """A video that is finished but not committed is rendered again."""
    from actors.publisher import Publisher

    patch(Publisher, "find", lambda original, *args, **kw: None)


MUTATIONS = {
    "no-commit": _no_commit,
    "commit-first": _commit_first,
    "no-verification": _no_verification,
    "no-adoption": _no_adoption,
}
