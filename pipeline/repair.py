"""What `jobs.reconcile --repair` does. Nothing is rendered, adopted or thrown away.

- A commit that is damaged, or whose MP4 is missing or corrupt, is moved to `run/damaged/`, and so is a corrupt MP4.
  The next `jobs.render` then makes their rows again.
- If the records differ from the commits, the snapshot is published anew from the commits.

Orphans stay: earlier manifests, or the next run, may need them. Each step can be interrupted and done again: an object
is copied before it is removed.
"""

import hashlib
from collections import Counter
from pathlib import PurePosixPath

from actors.parallel import parallel_map
from actors.storage import ObjectNotFound, join
from pipeline.agreement import OF_RECORDS, Agreement, Finding
from pipeline.commit_index import CommitIndex
from pipeline.snapshot import publish_snapshot

_WITHOUT_VIDEO = (Finding.MISSING_VIDEO, Finding.CORRUPT_VIDEO)


class Repair:
    """Acts on what an agreement found."""

    def __init__(self, index: CommitIndex, agreement: Agreement):
        self._index = index
        self._agreement = agreement
        self._done: Counter[str] = Counter()

    def run(self) -> dict[str, int]:
        """Sets aside and publishes; returns what was done, and how often."""
        self._set_aside("damaged commits moved to run/damaged/", self._damaged_commits())
        self._set_aside("commits without a whole MP4 moved to run/damaged/", self._commits_without_video())
        self._set_aside("corrupt MP4s moved to run/damaged/", self._corrupt_videos())
        if self._done or self._agreement.differences().keys() & OF_RECORDS:
            publish_snapshot(self._index)
            self._done["records published anew from the commits"] += 1
        return dict(self._done)

    def _damaged_commits(self) -> list[str]:
        found = self._agreement.of_kind(Finding.DAMAGED_COMMIT)
        return [self._index.commits.uri(damaged.record_id) for damaged in found if damaged.record_id]

    def _commits_without_video(self) -> list[str]:
        """Of every record that names the MP4: rows that share a video lose it together."""
        query = (
            "SELECT DISTINCT held.record_id FROM findings JOIN held ON held.row_key = findings.row_key "
            "WHERE held.status = 'ok' AND findings.kind IN (?, ?)"
        )
        found = self._index.scratch.rows(query, _WITHOUT_VIDEO)
        return [self._index.commits.uri(record_id.hex()) for (record_id,) in found]

    def _corrupt_videos(self) -> list[str]:
        found = self._agreement.of_kind(Finding.CORRUPT_VIDEO)
        return sorted({self._agreement.video_uri(video.row_key) for video in found if video.row_key})

    def _set_aside(self, what: str, uris: list[str]) -> None:
        moved = sum(parallel_map(self._move, uris))
        if moved:
            self._done[what] += moved

    def _move(self, uri: str) -> bool:
        """Moves one object to a name that its content makes its own; one that has gone was moved before."""
        storage = self._index.storage
        try:
            data = storage.read_bytes(uri)
        except ObjectNotFound:
            return False
        name = PurePosixPath(uri)
        aside = f"{name.stem}-{hashlib.sha256(data).hexdigest()[:8]}{name.suffix}"
        storage.write_bytes(join(self._index.output, "run", "damaged", aside), data)
        storage.delete(uri)
        return True
