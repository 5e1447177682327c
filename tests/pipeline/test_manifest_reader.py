"""Manifest files, good and damaged: every readable row is read, and what cannot be read is told once."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.storage import Storage, StorageUnavailable
from examples.s3_server import S3Server
from pipeline.manifest_reader import ManifestReader, RawRow
from schemas.manifest import InvalidRowError, ManifestError, UnreadableValue, parse_row
from schemas.run import FetchLimits, InfrastructureError
from tests.support.http_server import HttpServer, answer


def table(rows: int = 6, name: str = "p") -> pa.Table:
    return pa.table(
        {"prompt": [f"{name}{row}" for row in range(rows)], "style_image_uri": [["a.png"]] * rows},
        schema=pa.schema({"prompt": pa.string(), "style_image_uri": pa.list_(pa.string())}),
    )


def write(path: Path, content: pa.Table, **options: Any) -> Path:
    pq.write_table(content, path, **options)
    return path


def damage(path: Path, row_group: int, column: int = 0) -> None:
    """Overwrites the beginning of a column of a row group."""
    chunk = pq.ParquetFile(path).metadata.row_group(row_group).column(column)
    body = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    body[start : start + 20] = b"\xff" * 20
    path.write_bytes(body)


def read(uri: Path | str, limit: int | None = None) -> list[RawRow]:
    return list(ManifestReader(Storage(), str(uri), limit).rows())


def prompts(rows: list[RawRow]) -> list[str]:
    return [row.values["prompt"] for row in rows if row.problem is None]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a readable Parquet file"),
        (b"PAR1", "not a readable Parquet file"),
        (b"prompt,style_image_uri\na,b\n", "not a readable Parquet file"),
        (b"PAR1" + b"\xff" * 100 + b"\x40\0\0\0PAR1", "not a readable Parquet file"),
    ],
)
def test_a_damaged_file_among_good_ones_is_told_once(tmp_path: Path, content: bytes, said: str) -> None:
    write(tmp_path / "a.parquet", table(2, "a"))
    write(tmp_path / "c.parquet", table(2, "c"))
    (tmp_path / "b.parquet").write_bytes(content)
    reader = ManifestReader(Storage(), str(tmp_path))
    rows = list(reader.rows())
    assert prompts(rows) == ["a0", "a1", "c0", "c1"]
    [broken] = [row for row in rows if row.problem is not None]
    assert broken.problem is not None
    assert str(tmp_path / "b.parquet") in broken.problem
    assert said in broken.problem
    assert reader.num_rows == len(rows) == 5
    [warning] = reader.warnings
    assert "b.parquet" in warning
    assert [row.values for row in read(tmp_path) if row.problem] == [
        broken.values
    ]  # its record keeps its name


def test_a_file_without_a_needed_column_among_good_ones(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", table(1))
    write(tmp_path / "b.parquet", pa.table({"prompt": ["x"], "style": ["y"]}))
    write(
        tmp_path / "c.parquet",
        pa.Table.from_arrays([pa.array(["x"])] * 3, ["prompt", "style_image_uri", "prompt"]),
    )
    rows = read(tmp_path)
    assert "lacks the column 'style_image_uri'; it has 'prompt', 'style'" in (rows[1].problem or "")
    assert "has the column 'prompt' more than once" in (rows[2].problem or "")


def test_without_any_readable_file_the_run_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.parquet").write_bytes(b"damaged")
    with pytest.raises(ManifestError, match=r"a\.parquet: not a readable .*and 1 more files"):
        ManifestReader(Storage(), str(tmp_path))
    with pytest.raises(ManifestError, match=r"a\.parquet: not a readable"):
        ManifestReader(Storage(), str(tmp_path / "a.parquet"))
    with pytest.raises(ManifestError, match="neither such a file"):
        ManifestReader(Storage(), str(tmp_path / "absent.parquet"))


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_rows_before_damage_count_and_the_rest_is_told_with_its_position(
    tmp_path: Path, compression: str
) -> None:
    path = write(tmp_path / "m.parquet", table(9), row_group_size=3, compression=compression)
    write(tmp_path / "n.parquet", table(1, "n"))
    damage(path, row_group=1)
    rows = read(tmp_path)
    assert prompts(rows) == ["p0", "p1", "p2", "n0"]
    assert f"{path}: not a readable Parquet file" in (rows[3].problem or "")
    assert "from row 4 on; the 3 rows before it are used" in (rows[3].problem or "")
    assert rows[3].values == {"file": str(path), "first_row": 3}


def test_changed_bytes_are_seen_where_the_file_has_checksums(tmp_path: Path) -> None:
    plain = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    path = write(tmp_path / "m.parquet", table(3, "a cat "), **plain)
    path.write_bytes(path.read_bytes().replace(b"a cat 1", b"a dog 1", 1))
    [row] = read(path)
    assert "checksum" in (row.problem or "").lower() or "crc" in (row.problem or "").lower()


def test_a_limit_counts_what_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", table(2, "a"))
    (tmp_path / "b.parquet").write_bytes(b"damaged")
    write(tmp_path / "c.parquet", table(2, "c"))
    assert prompts(read(tmp_path, limit=2)) == ["a0", "a1"]
    assert prompts(read(tmp_path, limit=4)) == ["a0", "a1", "c0"]
    assert ManifestReader(Storage(), str(tmp_path), 4).num_rows == 4


def test_a_value_that_python_cannot_hold_costs_its_row_only(tmp_path: Path) -> None:
    as_bytes = pa.array([b"good", b"half \xed\xa0\xbd", b"fine"])
    text = pa.Array.from_buffers(pa.string(), 3, as_bytes.buffers())
    time = pa.array([0, 0, 2**62], pa.int64()).view(pa.timestamp("us"))
    content = pa.table({"prompt": text, "style_image_uri": ["a.png"] * 3, "meta_time": time})
    rows = read(write(tmp_path / "m.parquet", content))
    assert [row.problem for row in rows] == [None] * 3
    assert parse_row(rows[0].values).prompt == "good"
    assert isinstance(rows[1].values["prompt"], UnreadableValue)
    with pytest.raises(InvalidRowError, match=r"prompt: cannot be read: string value: .*utf-8"):
        parse_row(rows[1].values)
    with pytest.raises(InvalidRowError, match=r"meta_time'?: cannot be read: timestamp"):
        parse_row(rows[2].values)


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("prompt", pa.array([1]), "prompt = 1: Input should be a valid string"),
        ("prompt", pa.array([["a"]]), "prompt = ['a']: Input should be a valid string"),
        ("style_image_uri", pa.array([1.5]), "style_image_uri = 1.5: Input should be a valid list"),
        ("style_image_uri", pa.array([[["a.png"]]]), "style_image_uri.0 = ['a.png']: Input should be a valid"),
        ("style_image_uri", pa.array([[None]], pa.list_(pa.string())), "style_image_uri.0 = None"),
        ("style_image_uri", pa.array([{"uri": None}]), "Input should be a valid list"),
        ("style_image_uri", pa.nulls(1), "style_image_uri: is missing"),
        ("seed", pa.array([True]), "seed = True: a truth value is not allowed here"),
        ("seed", pa.array([2**63], pa.uint64()), "seed = 9223372036854775808"),
        ("num_frames", pa.array(["many"]), "num_frames = 'many'"),
        ("num_frames", pa.array([float("nan")]), "num_frames = nan"),
        ("height", pa.array([1e300]), "height = 1e+300"),
        ("style_scale", pa.array([float("inf")]), "style_scale = inf"),
        ("text_guidance_scale", pa.array([b"\xff"]), "text_guidance_scale = b'\\xff'"),
    ],
)  # fmt: skip
def test_columns_of_a_wrong_type(tmp_path: Path, column: str, values: pa.Array, said: str) -> None:
    content = {"prompt": pa.array(["a"]), "style_image_uri": pa.array([["a.png"]])} | {column: values}
    [row] = read(write(tmp_path / "m.parquet", pa.table(content)))
    with pytest.raises(InvalidRowError) as refused:
        parse_row(row.values)
    assert said in str(refused.value)


def test_a_megabyte_of_prompt_is_refused_briefly(tmp_path: Path) -> None:
    content = pa.table({"prompt": ["x" * 2**20] * 3, "style_image_uri": [["a.png"]] * 3})
    for row in read(write(tmp_path / "m.parquet", content)):
        with pytest.raises(InvalidRowError) as refused:
            parse_row(row.values)
        assert "at most 4096 characters" in str(refused.value)
        assert len(str(refused.value)) < 300


def test_many_unknown_columns_are_not_listed_one_by_one(tmp_path: Path) -> None:
    content = table(1)
    for number in range(60):
        content = content.append_column(f"column {number} {'x' * 1000}", pa.array([1]))
    reader = ManifestReader(Storage(), str(write(tmp_path / "m.parquet", content)))
    assert len(reader.warnings) == 21
    assert all(len(warning) < 400 for warning in reader.warnings)


def test_a_failing_disk_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        closed = False

        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

        def seek(self, *args: int) -> int:
            return 0

        def tell(self) -> int:
            return 1000

        def seekable(self) -> bool:
            return True

        readable = seekable

        def close(self) -> None: ...

        def __enter__(self) -> "Failing":
            return self

        def __exit__(self, *args: object) -> None: ...

    write(tmp_path / "m.parquet", table(1))
    monkeypatch.setattr(Storage, "open", lambda self, uri: Failing())
    with pytest.raises(InfrastructureError, match=r"cannot be read: .*Input/output error"):
        ManifestReader(Storage(), str(tmp_path / "m.parquet"))


def test_from_s3_in_parts(s3_env: S3Server, tmp_path: Path) -> None:
    big = table(300).append_column("meta_x", pa.array([os.urandom(3000) for _ in range(300)]))
    path = write(tmp_path / "m.parquet", big, row_group_size=50)
    storage = Storage()
    storage.upload(path, "s3://styles/manifests/a.parquet")
    storage.write_bytes("s3://styles/manifests/b.parquet", b"damaged")
    rows = list(ManifestReader(storage, "s3://styles/manifests").rows())
    assert prompts(rows) == big["prompt"].to_pylist()
    assert "s3://styles/manifests/b.parquet" in (rows[-1].problem or "")
    [first, *_] = rows = list(ManifestReader(storage, "s3://styles/manifests/a.parquet", limit=1).rows())
    assert first.values["meta_x"] == big["meta_x"][0].as_py()


def test_a_store_that_fails_is_no_damaged_file(
    s3_env: S3Server,
    http_server: HttpServer,
    short_pauses: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    body = write(tmp_path / "m.parquet", table(3)).read_bytes()
    monkeypatch.setenv("AWS_ENDPOINT_URL", http_server.url)
    http_server.on("/b/m.parquet", answer(200, body, ETag='"v"'), answer(200, body, ETag='"v"'), answer(503))
    with pytest.raises(StorageUnavailable, match="503"):
        ManifestReader(Storage(FetchLimits(fetch_retries=1)), "s3://b/m.parquet")
    assert http_server.requests == ["HEAD /b/m.parquet"] * 2 + ["GET /b/m.parquet"] * 2
    # A file that is replaced while it is read is not read on, as if it were the same.
    http_server.on("/b/m.parquet", answer(200, body, ETag='"v"'), answer(200, body, ETag='"v"'),
                   answer(206, body, ETag='"other"'))  # fmt: skip
    with pytest.raises(StorageUnavailable, match="changed while it was read"):
        ManifestReader(Storage(FetchLimits(fetch_retries=0)), "s3://b/m.parquet")
