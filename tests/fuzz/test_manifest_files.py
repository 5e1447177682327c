"""Whatever bytes and types manifest files hold, the reader gives every row that can be read, and names the rest."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.storage import Storage
from pipeline.manifest_reader import ManifestReader, RawRow
from schemas.manifest import ManifestError, parse_row

ROWS = 60


def written(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=20, **options)
    return sink.getvalue()


GOOD = pa.table(
    {
        "prompt": [f"prompt {row}" for row in range(ROWS)],
        "style_image_uri": [[f"s3://styles/{row}.png", None][: 1 + row % 2] for row in range(ROWS)],
        "seed": list(range(ROWS)),
        "meta_note": [None if row % 3 else {"a": [row]} for row in range(ROWS)],
    }
)
# As Spark, DuckDB and pandas would write it; checksums tell damage that would else be taken for text.
VARIANTS = {
    "plain": written(GOOD, compression="none", use_dictionary=False, write_page_checksum=True),
    "zstd": written(GOOD, compression="zstd", write_page_checksum=True),
    "snappy": written(GOOD, compression="snappy", data_page_version="2.0"),
    "no-checksum": written(GOOD, compression="none", use_dictionary=False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of one good file and one that a test makes."""
    folder = tmp_path_factory.mktemp("manifest")
    (folder / "good.parquet").write_bytes(VARIANTS["plain"])
    return folder


def read_all(folder: Path, data: bytes) -> list[RawRow]:
    """All rows of the other file, once it was seen that those of the good file are there."""
    (folder / "other.parquet").write_bytes(data)
    rows = list(ManifestReader(Storage(), str(folder)).rows())
    assert [row.values["prompt"] for row in rows[:ROWS]] == GOOD["prompt"].to_pylist()
    others = rows[ROWS:]
    for row in others[:-1]:
        assert row.problem is None
    for row in others:
        if row.problem is not None:
            assert "other.parquet" in row.problem
            assert len(row.problem) < 1_000
        else:
            assert "prompt" in row.values
    return others


changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12)


def changed(data: bytes, places: list[tuple[float, int]]) -> bytes:
    body = bytearray(data)
    for where, value in places:
        body[int(where * len(body))] = value
    return bytes(body)


@given(st.sampled_from(sorted(VARIANTS)), changes)
def test_changed_bytes(folder: Path, variant: str, places: list[tuple[float, int]]) -> None:
    data = changed(VARIANTS[variant], places)
    rows = read_all(folder, data)
    readable = [row.values for row in rows if row.problem is None]
    if variant in {"plain", "zstd"} and len(readable) == ROWS and "seed" in readable[0]:
        # Nothing was silently turned into something else, unless in the file's own description.
        assert readable == GOOD.to_pylist() or data[-400:] != VARIANTS[variant][-400:] or rows[-1].problem


@given(st.sampled_from(sorted(VARIANTS)), st.floats(0, 1), st.binary(max_size=64))
@example("plain", 0.0, b"")
@example("plain", 0.0, b"PAR1")
@example("plain", 0.0, b"PAR1PAR1")
@example("plain", 0.0, b"PAR1\xff\xff\xff\x7fPAR1")
@example("zstd", 1.0, b"x")
def test_truncated_and_prolonged_files(folder: Path, variant: str, part: float, tail: bytes) -> None:
    data = VARIANTS[variant]
    rows = read_all(folder, data[: int(part * len(data))] + tail)
    assert (part == 1.0 and not tail) or rows[-1].problem is not None or len(rows) == ROWS


leaf_types = st.sampled_from(
    [pa.string(), pa.large_string(), pa.binary(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.bool_(),
     pa.date32(), pa.time64("ns"), pa.timestamp("ns"), pa.timestamp("us", "Europe/Berlin"), pa.duration("s"),
     pa.decimal128(38, 3), pa.decimal256(60, 0), pa.null(), pa.dictionary(pa.int8(), pa.string())]
)  # fmt: skip
types = st.recursive(
    leaf_types,
    lambda inner: (
        inner.map(pa.list_)
        | inner.map(lambda kind: pa.struct([("a", kind), ("b", pa.int32())]))
        | inner.map(lambda kind: pa.map_(pa.string(), kind))
    ),
    max_leaves=3,
)
words = st.binary(max_size=16)


def column(kind: pa.DataType, bits: list[bytes | None]) -> pa.Array | None:
    """Values of a type, made of arbitrary bits: text that is not UTF-8, years that no calendar has."""
    if pa.types.is_nested(kind) or pa.types.is_dictionary(kind) or pa.types.is_null(kind):
        inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_dictionary(kind) else None
        if inner is not None and not pa.types.is_nested(inner):
            values = column(inner, bits)
            if pa.types.is_dictionary(kind):
                return values.dictionary_encode().cast(kind) if len(bits) < 100 else None
            offsets = pa.array(range(len(bits) + 1), pa.int32())
            return pa.ListArray.from_arrays(offsets, values)
        return pa.nulls(len(bits), kind)
    valid = pa.array([bit is not None for bit in bits])
    validity = valid.buffers()[1]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        as_bytes = pa.array(bits, pa.large_binary() if pa.types.is_large_string(kind) else pa.binary())
        return pa.Array.from_buffers(kind, len(bits), as_bytes.buffers(), null_count=as_bytes.null_count)
    width = 1 if pa.types.is_boolean(kind) else kind.bit_width // 8
    body = b"".join((bit or b"").ljust(width, b"\xee")[:width] for bit in bits)
    return pa.Array.from_buffers(kind, len(bits), [validity, pa.py_buffer(body or b"\0")])


names = st.sampled_from(["prompt", "style_image_uri", "seed", "num_frames", "style_scale", "row_id", "mode",
                         "meta_x", "meta_", "meta_a.b", "comment", "meta_\u00e9"])  # fmt: skip


@given(st.lists(st.tuples(names, types), max_size=6), st.lists(st.none() | words, min_size=1, max_size=5))
@example([("prompt", pa.string())], [b"half \xed\xa0\xbd", b"good", None])
@example([("meta_x", pa.timestamp("ns")), ("prompt", pa.large_string())], [b"\xff" * 8, b"\x01" * 8])
@example([("seed", pa.date32()), ("meta_x", pa.decimal256(60, 0))], [b"\xff\xff\xff\x7f", b"\x7f" * 32])
@example([("prompt", pa.string()), ("prompt", pa.int8())], [b"twice"])
def test_columns_of_any_type(
    folder: Path, chosen: list[tuple[str, pa.DataType]], bits: list[bytes | None]
) -> None:
    pairs = [("prompt", pa.string()), ("style_image_uri", pa.string())]
    pairs = [pair for pair in pairs if pair[0] not in dict(chosen)] + chosen
    try:
        table = pa.Table.from_arrays([column(kind, bits) for _, kind in pairs], [name for name, _ in pairs])
        data = written(table)
    except pa.ArrowException:
        return  # Arrow itself does not write such a thing
    rows = read_all(folder, data)
    # Arrow reads a dictionary of strings as a whole or not at all: there, bad text costs the file.
    if len(dict(pairs)) == len(pairs) and not any("dictionary" in str(kind) for _, kind in pairs):
        assert [row.problem for row in rows] == [None] * len(bits)
        for row in rows:
            try:
                parse_row(row.values)
            except ManifestError:
                raise
            except ValueError as error:
                assert str(error)
