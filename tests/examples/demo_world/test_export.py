"""The command line: files that hold what the stream draws, and a manifest that names them."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from actors.storage import Storage
from actors.video_codec import decode_mp4, verify_mp4
from examples.demo_world.captions import parse_caption
from examples.demo_world.dataset import clip, still
from examples.demo_world.export import Export, export
from examples.s3_server import S3Server
from schemas.run import ExitCode

ROOT = Path(__file__).parents[3]


def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.demo_world", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=env)


def test_the_command_writes_what_the_stream_draws(tmp_path: Path) -> None:
    flags = (
        "--clips",
        "3",
        "--stills",
        "34",
        "--split",
        "held-out",
        "--seed",
        "5",
        "--depth",
        "--workers",
        "2",
    )
    done = run("--output", str(tmp_path / "set"), *flags)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert done.stdout.strip() == str(tmp_path / "set" / "manifest.parquet")
    rows = pq.read_table(done.stdout.strip()).to_pylist()
    assert [row["kind"] for row in rows] == ["video"] * 3 + ["image"] * 34
    for row in rows:
        draw = clip if row["kind"] == "video" else still
        sample = draw(5, row["meta_index"], split="held-out", styles=8)
        assert row["caption"] == sample.labels.caption
        assert row["style_id"] == sample.labels.style_id
        assert parse_caption(row["caption"]) == (row["meta_shape"], row["meta_scene"], row["meta_motion"])
        assert (row["meta_family"], row["meta_palette"]) == sample.style.combination
        assert row["meta_split"] == "held-out"
        if row["kind"] == "image":
            assert np.array_equal(np.asarray(Image.open(row["uri"])), sample.frames_THWC[0])
            assert np.array_equal(np.asarray(Image.open(row["depth_uri"])), sample.depth_THW[0])
        else:
            verify_mp4(Path(row["uri"]), 8, 64, 64)
            assert _psnr(decode_mp4(Path(row["uri"]), 8, 64, 64), sample.frames_THWC) > 27
            depth_THWC = decode_mp4(Path(row["depth_uri"]), 8, 64, 64)
            assert np.abs(depth_THWC[..., 0].astype(int) - sample.depth_THW).max() <= 4


def test_to_an_object_store(s3_env: S3Server) -> None:
    job = Export("s3://outputs/demo-world", clips=1, stills=2, look="neutral", styles=1, size=32, frames=2)
    uri = export(job)
    assert uri == "s3://outputs/demo-world/manifest.parquet"
    storage = Storage()
    rows = pq.read_table(io.BytesIO(storage.read_bytes(uri))).to_pylist()
    assert len(rows) == 3
    assert all(storage.exists(row["uri"]) and row["style_id"] is None for row in rows)


def test_captions_may_name_the_style(tmp_path: Path) -> None:
    uri = export(Export(str(tmp_path), clips=0, stills=8, styles=8, size=16, name_styles=True))
    for row in pq.read_table(uri).to_pylist():
        plain = still(0, row["meta_index"], styles=8, size=16).labels.caption
        assert len(row["caption"]) > len(plain)
        assert parse_caption(row["caption"]) == parse_caption(plain)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "clips = 0 and stills = 0: one of them must be at least 1"),
        (("--stills", "1", "--size", "31"), "size = 31: must be an even number"),
        (("--stills", "1", "--styles", "0"), "styles = 0: must be at least 1"),
        (("--clips", "-1", "--stills", "2"), "clips = -1: must be at least 0"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    done = run("--output", str(tmp_path / "set"), *flags)
    assert done.returncode == ExitCode.USAGE
    assert message in done.stderr
    assert not (tmp_path / "set").exists()


def test_an_output_that_cannot_be_written_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run("--output", str(tmp_path / "file"), "--stills", "1", "--workers", "1", env={**os.environ})
    assert done.returncode == ExitCode.INFRASTRUCTURE
    assert "Traceback" not in done.stderr


def _psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((first.astype(float) - second) ** 2).mean()))
