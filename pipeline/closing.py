"""The end of a run: records published, everything compared by name and size, and `_SUCCESS` where it agrees."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from actors.storage import Storage, join
from pipeline.agreement import Agreement, Finding
from pipeline.commit_index import CommitIndex
from pipeline.snapshot import publish_snapshot
from schemas.identity import digest

_SUCCESS = "_SUCCESS"


def close_output(
    index: CommitIndex, about: Mapping[str, Any], each: Callable[[pa.Table], None]
) -> dict[Finding, int]:
    """Publishes the records of what is committed now, and marks the output if nothing is missing.

    Args:
        index: loaded before; its scratch database has the table `asked`.
        about: what the mark says of the manifest and the run.
        each: is given every part of the records once.

    Returns:
        The differences that are left.
    """
    publish_snapshot(index, each)
    agreement = Agreement(index)
    agreement.compare(records=False)
    differences = agreement.differences()
    mark(index, {**about, "checked": "listing"}, agrees=not differences)
    return differences


def mark(index: CommitIndex, about: Mapping[str, Any], *, agrees: bool) -> None:
    """Writes `_SUCCESS`, the sign that nothing is missing, or removes it."""
    uri = join(index.output, _SUCCESS)
    if not agrees:
        index.storage.delete(uri)
        return
    statuses = index.statuses()
    body = {
        **about,
        "records": sum(statuses.values()),
        "statuses": statuses,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    index.storage.write_bytes(uri, json.dumps(body, indent=2, ensure_ascii=False).encode())


def manifest_fingerprint(storage: Storage, files: list[str], limit: int | None) -> str:
    """A hash of a manifest's content, wherever it lies."""
    stats = [storage.stat(file) for file in files]
    return digest([[[stat.size_bytes, stat.version] for stat in stats], limit])
