"""Hostile manifest rows among good ones, all in one run: each must fail alone, for its own reason."""

import random
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.faults.audit import Expected, Identity
from benchmarks.faults.fault import Fault
from benchmarks.faults.lab import Lab, Row, write_manifest, write_picture
from benchmarks.faults.life import Life, local_arguments
from benchmarks.faults.outputs import LocalOutput
from benchmarks.faults.result import Result

_GOOD_ROWS = 10
_MAX_BYTES = 2**20
_LIMITS = ("--limits.max-image-bytes", str(_MAX_BYTES), "--limits.max-image-pixels", "4000000")
KINDS = (
    "bad_uri",
    "undecodable",
    "bomb",
    "missing_object",
    "asset_changed",
    "invalid_row",
    "duplicate_id",
)

_BAD_URIS = (
    "ftp://example.org/a.png",
    "gs://bucket/a.png",
    "data:image/png;base64,iVBORw0KGgo=",
    "file:///etc/passwd",
    "../../../../../../etc/passwd",
    "/proc/self/environ",
    "http://169.254.169.254/latest/meta-data/",
    "http://127.0.0.1:1/a.png",
    "http://[::1]/a.png",
    "http://10.0.0.1/a.png",
    "s3://someone-elses/a.png",
    "styles/../../../etc/hostname",
)
_INVALID: tuple[Mapping[str, object], ...] = (
    {"text_guidance_scale": float("nan")},
    {"style_guidance_scale": float("inf")},
    {"style_scale": -1.0},
    {"num_frames": 0},
    {"num_frames": 100_000},
    {"height": 33},
    {"width": 2**30},
    {"prompt": ""},
    {"prompt": "x" * 1_000_000},
    {"prompt": "a\x00b"},
    {"style_image_uri": []},
    {"style_image_uri": [None]},
    {"seed": -1},
    {"num_inference_steps": 0},
    {"fps": 0},
    {"mode": "hologram"},
)


def run(lab: Lab, name: str, counts: Mapping[str, int]) -> Result:
    """One run over all hostile rows."""
    hostile = _Hostile(lab, random.Random(lab.seed))
    for kind in KINDS:
        for index in range(counts.get(kind, 0)):
            getattr(hostile, kind)(f"{kind}-{index:02d}", index)
    rows = [*lab.pool(_GOOD_ROWS), *hostile.rows]
    write_manifest(lab.base / f"{name}.parquet", rows)
    output = LocalOutput(lab.folder / "out" / name)
    life = Life(
        lab,
        name,
        output,
        local_arguments(
            lab,
            f"{name}.parquet",
            output,
            "--limits.input-roots",
            str(lab.base),
            "--unit-rows",
            "4",
            *_LIMITS,
        ),
        lab.expected(lab.pool(_GOOD_ROWS)) | hostile.expected,
        hostile.faults,
    )
    for fault in hostile.faults:
        if fault.point is None:
            life.directory.claim(fault)
    life.run_until_done(normal=frozenset({1} if hostile.rows else {0}))
    return life.result()


class _Hostile:
    """Rows that must fail, what must come of them, and their faults: one method per kind."""

    def __init__(self, lab: Lab, chance: random.Random):
        self._lab = lab
        self._chance = chance
        self.rows: list[Row] = []
        self.expected: dict[Identity, Expected] = {}
        self.faults: list[Fault] = []

    def bad_uri(self, row_id: str, index: int) -> None:
        uri = _BAD_URIS[index % len(_BAD_URIS)]
        self._add("bad_uri", row_id, ("invalid",), ("uri_forbidden",), {"style_image_uri": [uri]})

    def undecodable(self, row_id: str, index: int) -> None:
        broken = _BROKEN[index % len(_BROKEN)](self._lab.base / "styles" / "r000.png", self._chance)
        self._add("undecodable", row_id, ("failed",), ("asset_undecodable",), picture=broken)

    def bomb(self, row_id: str, index: int) -> None:
        too_long = self._chance.randbytes(_MAX_BYTES + 1 + index)
        side = self._chance.randrange(8_000, 60_000)
        picture = too_long if index % 3 == 2 else _png_of_zeros(side, whole=index % 3 == 0)
        self._add("bomb", row_id, ("failed",), ("asset_too_large",), picture=picture)

    def missing_object(self, row_id: str, index: int) -> None:
        uri = ("styles/none-{}.png", "none-{}/r000.png", "styles/r000.png/none-{}")[index % 3].format(index)
        self._add("missing_object", row_id, ("failed",), ("asset_not_found",), {"style_image_uri": [uri]})

    def asset_changed(self, row_id: str, index: int) -> None:
        path = self._path(row_id)
        write_picture(path, 1000 + index)
        self._add(
            "asset_changed",
            row_id,
            ("failed",),
            ("asset_changed",),
            {"style_image_uri": [f"styles/{path.name}"]},
            fault=Fault(row_id, "asset_changed", point="planned", action=f"rewrite {path}"),
        )

    def invalid_row(self, row_id: str, index: int) -> None:
        self._add("invalid_row", row_id, ("invalid",), ("invalid_row",), _INVALID[index % len(_INVALID)])

    def duplicate_id(self, row_id: str, index: int) -> None:
        """The first row of an id is a good one, the second one another row, and its record has a name of its own."""
        first = self._lab.pool(index % _GOOD_ROWS + 1)[-1] | {"row_id": row_id, "num_samples": 1}
        self.rows.append(first)
        self.expected[row_id, 0] = Expected(
            frames_sha256=self._lab.reference.get((f"r{index % _GOOD_ROWS:03d}", 0))
        )
        self._add("duplicate_id", row_id, ("invalid",), ("duplicate_row_id",), record=f"{row_id}~2")

    def _add(
        self,
        kind: str,
        row_id: str,
        statuses: tuple[str, ...],
        error_classes: tuple[str, ...],
        values: Mapping[str, object] | None = None,
        *,
        picture: bytes | None = None,
        fault: Fault | None = None,
        record: str | None = None,
    ) -> None:
        row: Row = {
            "row_id": row_id,
            "prompt": f"a hostile row, {row_id}",
            "style_image_uri": ["styles/r000.png"],
        }
        if picture is not None:
            self._path(row_id).write_bytes(picture)
            row["style_image_uri"] = [f"styles/{row_id}.png"]
        self.rows.append(row | dict(values or {}))
        self.expected[record or row_id, 0] = Expected(statuses, error_classes)
        self.faults.append(fault or Fault(row_id, kind, row_id=record or row_id))

    def _path(self, row_id: str) -> Path:
        return self._lab.base / "styles" / f"{row_id}.png"


def _png_of_zeros(side: int, *, whole: bool) -> bytes:
    """A PNG of side x side black pixels; not whole: it ends where its pixels begin."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    if not whole:
        return header + chunk(b"IDAT", zlib.compress(b"\0"))
    line = b"\0" * (1 + (side + 7) // 8)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
    return header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def _flipped(data: bytes, chance: random.Random) -> bytes:
    """The picture with its compressed pixels overwritten."""
    start = data.index(b"IDAT") + 8
    return data[:start] + chance.randbytes(len(data) - start - 16) + data[-16:]


# From a good picture's path and a source of chance to something that is no picture.
_BROKEN: tuple[Callable[[Path, random.Random], bytes], ...] = (
    lambda good, chance: b"",
    lambda good, chance: good.read_bytes()[: good.stat().st_size // 2],
    lambda good, chance: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    lambda good, chance: b"<!doctype html><title>404</title>",
    lambda good, chance: chance.randbytes(4096),
    lambda good, chance: _flipped(good.read_bytes(), chance),
    lambda good, chance: b"\xff\xd8\xff\xe0" + chance.randbytes(2048),
    lambda good, chance: b"GIF89a" + chance.randbytes(64),
    lambda good, chance: b"RIFF\x10\x00\x00\x00WEBPVP8 " + chance.randbytes(32),
    lambda good, chance: b"%PDF-1.7\n" + chance.randbytes(128),
    lambda good, chance: b"PK\x03\x04" + chance.randbytes(128),
    lambda good, chance: b"\0\0\0\x18ftypmp42" + chance.randbytes(256),
)
