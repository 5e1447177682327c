"""Comparisons that take more than names: each record with its commit, each MP4 with its hash, or decoded."""

import hashlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from actors.image_codec import verify_image
from actors.parallel import parallel_map
from actors.records import Record
from actors.storage import ObjectNotFound, join
from actors.video_codec import VideoError, verify_mp4
from pipeline.agreement import Agreement, Finding, Found
from pipeline.asked import IS_CURRENT
from pipeline.commit_index import CommitIndex
from pipeline.files import read_batches
from schemas.identity import media_suffix
from schemas.record import RECORD_SCHEMA

_COMPARED_TOGETHER = 1_000
_READERS = 16
_EMPTY = dict.fromkeys(RECORD_SCHEMA.names)  # a snapshot of an older version lacks the latest columns
_TABLES = (
    "CREATE TABLE IF NOT EXISTS recorded (record_id PRIMARY KEY, copies, differs) WITHOUT ROWID",
    "DELETE FROM recorded",
    "DELETE FROM held",
)
_COUNT = (
    "INSERT INTO recorded VALUES (?, 1, ?) ON CONFLICT (record_id) "
    "DO UPDATE SET copies = copies + 1, differs = max(differs, excluded.differs)"
)


def compare_records(index: CommitIndex, *, contents: bool) -> None:
    """Fills `held` and `damaged`, and `recorded` with what readers of the folder `records/` find.

    Args:
        contents: every commit is read and compared with its record; else only those that the saved index does not
            know, and a record differs where the index says that its commit is newer.
    """
    for statement in _TABLES:
        index.scratch.execute(statement)
    if contents:
        index.list_commits()
    else:
        index.load()
    for stat in index.storage.list(join(index.output, "records")):
        for batch in read_batches(index.storage, stat.uri):
            if "record_id" not in batch.schema.names:
                continue
            for start in range(0, batch.num_rows, _COMPARED_TOGETHER):
                _compare_some(index, batch.slice(start, _COMPARED_TOGETHER), contents=contents)
    index.read_unknown(index.as_table if contents else lambda records: None)


def _compare_some(index: CommitIndex, records: pa.RecordBatch, *, contents: bool) -> None:
    ids = records["record_id"].to_pylist()
    different = set()
    if contents:
        committed = {record["record_id"]: record for record in index.read(list(dict.fromkeys(ids)))}
        different = _different(index, records, committed)
    else:
        query = (
            f"SELECT record_id FROM held WHERE NOT in_records AND record_id IN ({', '.join('?' * len(ids))})"
        )
        newer = index.scratch.rows(query, [bytes.fromhex(record_id) for record_id in ids])
        different = {record_id.hex() for (record_id,) in newer}
    index.scratch.each(_COUNT, [(bytes.fromhex(record_id), record_id in different) for record_id in ids])


def _different(index: CommitIndex, records: pa.RecordBatch, committed: dict[str, Record]) -> set[str]:
    """The ids of records with other values than their commits."""
    ids = records["record_id"].to_pylist()
    theirs = index.as_table([committed[record_id] for record_id in ids if record_id in committed])
    if theirs.equals(pa.Table.from_batches([records])):
        return set()
    # As text, since NaN is not equal to itself.
    text_of = {record["record_id"]: repr(record) for record in theirs.to_pylist()}
    return {
        record["record_id"]
        for record in records.to_pylist()
        if text_of.get(record["record_id"], "") not in {"", repr(_EMPTY | record)}
    }


def compare_videos(index: CommitIndex, agreement: Agreement, *, decode: bool) -> None:
    """Adds a finding for each MP4 of the right size that is not the one that its record was written for.

    Args:
        decode: each is decoded too, and must give the frames that its record says.
    """

    def check(video: tuple[bytes, bytes, bytes]) -> Found | None:
        row_key, sha256, record_id = (value.hex() for value in video)
        uri = agreement.video_uri(row_key)
        try:
            data = index.storage.read_bytes(uri)
        except ObjectNotFound:
            return Found(Finding.MISSING_VIDEO, record_id, row_key, None)
        if hashlib.sha256(data).hexdigest() != sha256:
            return Found(Finding.CORRUPT_VIDEO, record_id, row_key, "another SHA-256 than its record says")
        reason = _decoding_error(data, index.commits.read(record_id)) if decode else None
        return Found(Finding.CORRUPT_VIDEO, record_id, row_key, reason) if reason else None

    videos = index.scratch.rows(
        "SELECT held.row_key, sha256, min(record_id) FROM asked JOIN held USING (record_id) "
        "JOIN videos ON videos.row_key = held.row_key AND videos.size_bytes IS held.size_bytes "
        f"WHERE {IS_CURRENT} AND status = 'ok' GROUP BY held.row_key, sha256"
    )
    threads = os.cpu_count() or 1 if decode else _READERS
    agreement.add(found for found in parallel_map(check, videos, threads) if found)


def _decoding_error(data: bytes, record: Record | None) -> str | None:
    """Why a video or image does not decode to what its record says, or None."""
    if record is None:
        return "its commit has gone"
    with TemporaryDirectory(prefix="stylecrafter-") as folder:
        path = Path(folder, f"file.{media_suffix(record['mode'], record.get('image_format'))}")
        path.write_bytes(data)
        verify = verify_image if record["mode"] == "image" else verify_mp4
        try:
            verify(path, record["num_frames"], record["height"], record["width"])
        except VideoError as error:
            return str(error)
    return None
