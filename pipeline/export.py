"""Finished videos with their records in the formats that trainers and curators read."""

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.parallel import parallel_map
from actors.storage import ObjectNotFound, Storage, join
from pipeline.finished import FinishedOutput, open_output
from schemas.identity import media_suffix
from schemas.record import RECORD_SCHEMA, Status
from schemas.review_run import ExportRun
from schemas.run import UsageError

_VIDEO_TYPE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_HUGGINGFACE_SCHEMA = pa.schema([pa.field("video", _VIDEO_TYPE), *RECORD_SCHEMA])
_GROUP_ROWS = 64  # videos that a reader of the Parquet file holds at once
_CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
Stylised videos with their records, made by StyleCrafter Batch.

```python
from datasets import Video, load_dataset

dataset = load_dataset("THIS FOLDER", split="train").cast_column("video", Video())
```
"""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    samples: int
    files: list[str]
    missing: list[str]  # row_ids whose MP4 is not there


def export(run: ExportRun, storage: Storage) -> Exported:
    """Writes every ok record with its video.

    Raises:
        UsageError: there is something at the target already, or no video is finished.
    """
    target = run.webdataset or run.huggingface
    assert target is not None
    if next(iter(storage.list(target)), None) is not None:
        raise UsageError(f"{target} is not empty; an export is written to a new place")
    output = open_output(storage, run.output)
    missing: list[str] = []
    modes = {"video", "image"} if run.webdataset else {"video"}  # a column of videos holds no images
    samples = _samples(output, modes, missing)
    if run.webdataset:
        exported = _write_shards(storage, target, samples, run.shard_bytes, "tar", _TarShard)
        listing = {"output": output.uri, "shards": [file.rsplit("/", 1)[-1] for file in exported.files]}
        storage.write_bytes(join(target, "shards.json"), json.dumps(listing, indent=1).encode())
    else:
        exported = _write_shards(
            storage, join(target, "data"), samples, run.shard_bytes, "parquet", _ParquetShard
        )
        storage.write_bytes(join(target, "README.md"), _CARD.encode())
    if not exported.samples:
        raise UsageError(f"output = {run.output!r}: no video there is finished")
    return Exported(exported.samples, exported.files, missing)


Sample = tuple[dict[str, Any], bytes]


def _samples(output: FinishedOutput, modes: Collection[str], missing: list[str]) -> Iterator[Sample]:
    """Records with the bytes of their video or image, a few read ahead."""
    records = (
        record
        for batch in output.batches()
        for record in batch.to_pylist()
        if record["status"] == Status.OK and record["mode"] in modes
    )

    def read(record: dict[str, Any]) -> tuple[dict[str, Any], bytes | None]:
        try:
            return record, output.storage.read_bytes(output.video_uri(record))
        except ObjectNotFound:
            return record, None

    for record, video in parallel_map(read, records):
        if video is None:
            missing.append(record["row_id"])
        else:
            yield record, video


class _TarShard:
    """A WebDataset shard: for each record `<record_id>.mp4` (or `.png`, `.jpg`), `.txt` (the prompt) and `.json` (the record)."""

    def __init__(self, path: Path):
        self._tar = tarfile.open(path, "w")  # noqa: SIM115 - closed by `close`

    def add(self, sample: Sample) -> None:
        record, video = sample
        text = json.dumps(record | {"finished_at": record["finished_at"].isoformat()}, ensure_ascii=False)
        files = {
            media_suffix(record["mode"], record["image_format"]): video,
            "txt": (record["prompt"] or "").encode(),
            "json": text.encode(),
        }
        for suffix, data in files.items():
            member = tarfile.TarInfo(
                f"{record['record_id']}.{suffix}"
            )  # without times: equal samples, equal bytes
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        self._tar.close()


class _ParquetShard:
    """A Parquet file of records with the column `video`, as Hugging Face `datasets` keeps videos."""

    def __init__(self, path: Path):
        self._writer = pq.ParquetWriter(path, _HUGGINGFACE_SCHEMA, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, sample: Sample) -> None:
        record, video = sample
        self._rows.append(record | {"video": {"bytes": video, "path": f"{record['record_id']}.mp4"}})
        if len(self._rows) == _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=_HUGGINGFACE_SCHEMA))
            self._rows = []


def _write_shards(
    storage: Storage,
    folder: str,
    samples: Iterator[Sample],
    shard_bytes: int,
    suffix: str,
    make: Callable[[Path], _TarShard | _ParquetShard],
) -> Exported:
    """Each shard is filled on local disk and then uploaded whole."""
    count, files = 0, list[str]()
    waiting = next(samples, None)
    with tempfile.TemporaryDirectory(prefix="stylecrafter-") as scratch:
        while waiting is not None:
            path = Path(scratch, f"train-{len(files):05d}.{suffix}")
            shard, size = make(path), 0
            while waiting is not None and size < shard_bytes:
                shard.add(waiting)
                size += len(waiting[1])
                count += 1
                waiting = next(samples, None)
            shard.close()
            files.append(join(folder, path.name))
            storage.upload(path, files[-1])
            path.unlink()
    return Exported(count, files, [])
