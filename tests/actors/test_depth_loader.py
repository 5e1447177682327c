"""Depth videos from files of every kind, honest and hostile."""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors.assets import AssetLoader
from actors.storage import Storage
from actors.video_codec import encode_mp4
from schemas.planned import AssetRef
from schemas.record import ErrorClass, RowError
from schemas.run import FetchLimits
from stylecrafter.depth import prepare_depth

CLIP = np.linspace(0, 1, 6 * 16 * 24).reshape(6, 16, 24)


@pytest.fixture
def loaders() -> Iterator[Any]:
    made = []

    def make(**limits: Any) -> AssetLoader:
        config = FetchLimits(**limits)
        made.append(AssetLoader(Storage(config), config))
        return made[-1]

    yield make
    for loader in made:
        loader.close()


def load(loader: AssetLoader, location: Path | str) -> np.ndarray:
    stat = loader.probe_depth(str(location))
    ref = AssetRef(
        uri=str(location), location=str(location), version=stat.version, size_bytes=stat.size_bytes
    )
    return loader.depth_video(ref).frames


def refusal(loader: AssetLoader, path: Path, data: bytes | None = None) -> RowError:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(RowError) as refused:
        load(loader, path)
    return refused.value


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=values.dtype == object)
    return buffer.getvalue()


def header_only(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(64)


def write_frames(folder: Path, frames: np.ndarray = CLIP) -> Path:
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(np.rint(65535 * frame).astype(np.uint16)).save(folder / f"depth_{number * 3}.png")
    return folder


def test_every_kind_of_file_is_the_same_clip(loaders: Any, tmp_path: Path) -> None:
    loader = loaders()
    (tmp_path / "a.npy").write_bytes(npy(CLIP))
    (tmp_path / "f.npy").write_bytes(npy(np.asfortranarray(CLIP)))
    (tmp_path / "rgb.npy").write_bytes(npy(np.repeat(CLIP[..., None], 3, axis=3).astype(np.float16)))
    np.savez_compressed(tmp_path / "one.npz", whatever=CLIP)
    np.savez(tmp_path / "two.npz", depth=CLIP, other=CLIP[:1])
    write_frames(tmp_path / "frames")
    grey = np.rint(255 * CLIP).astype(np.uint8)
    encode_mp4(np.repeat(grey[..., None], 3, axis=3), tmp_path / "v.mp4", fps=6, crf=1)
    expected = prepare_depth(CLIP, 4, 8, 16)
    for name, tolerance in (
        ("a.npy", 0), ("f.npy", 0), ("rgb.npy", 3e-3), ("one.npz", 0), ("two.npz", 0), ("frames", 1e-4), ("v.mp4", 0.05),
    ):  # fmt: skip
        frames = load(loader, tmp_path / name)
        assert not frames.flags.writeable
        assert (prepare_depth(frames, 4, 8, 16) - expected).abs().max() <= tolerance + 1e-6, name


def test_sixteen_bits_are_kept_and_frames_are_in_the_order_of_their_numbers(
    loaders: Any, tmp_path: Path
) -> None:
    folder = write_frames(tmp_path / "frames")
    (folder / "notes.txt").write_text("not a frame")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "1.png").write_bytes(b"not looked at")
    assert np.array_equal(load(loaders(), f"{folder}/"), np.rint(65535 * CLIP).astype(np.float32))


def test_one_picture_is_one_frame(loaders: Any, tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 12, 3), 90, np.uint8)).save(tmp_path / "still.jpg", quality=100)
    frames = load(loaders(), tmp_path / "still.jpg")
    assert frames.shape == (1, 8, 12)
    assert frames == pytest.approx(90, abs=1)


def test_a_changed_frame_changes_the_version(loaders: Any, tmp_path: Path) -> None:
    folder, loader = write_frames(tmp_path / "frames"), loaders()
    planned = loader.probe_depth(str(folder))
    write_frames(tmp_path / "others", 1 - CLIP)
    (tmp_path / "others" / "depth_3.png").replace(folder / "depth_3.png")
    ref = AssetRef(uri="frames", location=str(folder), version=planned.version, size_bytes=planned.size_bytes)
    with pytest.raises(RowError) as refused:
        loader.depth_video(ref)
    assert refused.value.error_class is ErrorClass.ASSET_CHANGED


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"<html></html>", "cannot be decoded"),
        (npy(np.array([{}, []], dtype=object)), "no whole .npy file|holds object"),
        (npy(np.zeros((2, 4, 4), complex)), "holds complex"),
        (npy(np.zeros((2, 4, 4), np.dtype([("a", "f4")]))), "the array holds"),
        (npy(np.zeros(5)), r"has shape \(5,\)"),
        (npy(np.zeros((0, 4, 4))), "not empty"),
        (npy(np.zeros((1, 2, 3, 4))), "has shape"),
        (npy(CLIP)[:-1], "truncated"),
        (npy(CLIP)[:40], "no whole .npy"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "no whole .npy"),
        (b"\x93NUMPY\x03\x00" + npy(CLIP)[8:], "version"),
        (npy(np.full((2, 4, 4), np.nan)), "not finite"),
        (npy(np.full((2, 4, 4), 1e300)), "not finite in 32 bits"),
        (b"PK\x03\x04 no archive", "no whole .npz"),
    ],
)
def test_what_is_no_depth_is_undecodable(loaders: Any, tmp_path: Path, data: bytes, said: str) -> None:
    error = refusal(loaders(), tmp_path / "x.npy", data)
    assert error.error_class is ErrorClass.ASSET_UNDECODABLE
    assert re.search(said, error.message)


@pytest.mark.parametrize("shape", [(100_000, 4096, 4096), (1, 10**9, 10**9)])
def test_a_header_that_promises_too_much_is_too_large_before_anything_is_made(
    loaders: Any, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    error = refusal(loaders(), tmp_path / "x.npy", header_only(shape))
    assert error.error_class is ErrorClass.ASSET_TOO_LARGE
    assert "values; at most" in error.message


def test_an_archive_that_unpacks_to_too_much_is_too_large(loaders: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", npy(np.zeros((1, 3000, 3100))))
    error = refusal(loaders(decode_memory_bytes=2**28), tmp_path / "bomb.npz")
    assert error.error_class is ErrorClass.ASSET_TOO_LARGE
    np.savez(tmp_path / "two.npz", a=CLIP, b=CLIP)
    assert "holds 2 arrays" in refusal(loaders(), tmp_path / "two.npz").message


def test_folders_within_limits(loaders: Any, tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames")
    too_large = ErrorClass.ASSET_TOO_LARGE
    assert refusal(loaders(max_video_frames=5), folder).error_class is too_large
    assert refusal(loaders(max_video_bytes=600), folder).error_class is too_large
    assert refusal(loaders(max_image_bytes=50), folder).error_class is too_large
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "depth_99.png")
    assert "depth_99.png has 4 x 4 pixels and the first frame 24 x 16" in refusal(loaders(), folder).message
    (folder / "depth_99.png").write_bytes(b"<svg/>")
    assert refusal(loaders(), folder).error_class is ErrorClass.ASSET_UNDECODABLE
    (tmp_path / "empty").mkdir()
    assert refusal(loaders(), tmp_path / "empty").error_class is ErrorClass.ASSET_NOT_FOUND
    assert refusal(loaders(), tmp_path / "missing").error_class is ErrorClass.ASSET_NOT_FOUND


def test_a_frame_that_leads_out_of_the_allowed_roots_is_refused(loaders: Any, tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames")
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(tmp_path / "secret.png")
    (folder / "depth_1.png").symlink_to(tmp_path / "secret.png")
    error = refusal(loaders(input_roots=(str(folder),)), folder)
    assert error.error_class is ErrorClass.URI_FORBIDDEN
    assert refusal(loaders(input_roots=(f"{tmp_path}/else",)), folder).error_class is ErrorClass.URI_FORBIDDEN


def test_a_long_video_is_too_large(loaders: Any, tmp_path: Path) -> None:
    encode_mp4(np.zeros((6, 16, 24, 3), np.uint8), tmp_path / "v.mp4", fps=6, crf=30)
    error = refusal(loaders(max_video_frames=5), tmp_path / "v.mp4")
    assert error.error_class is ErrorClass.ASSET_TOO_LARGE


def test_folders_and_arrays_in_an_object_store(loaders: Any, tmp_path: Path, s3_env: Any) -> None:
    folder, storage = write_frames(tmp_path / "frames"), Storage()
    for file in folder.iterdir():
        storage.write_bytes(f"s3://styles/depth/frames/{file.name}", file.read_bytes())
    storage.write_bytes("s3://styles/depth/clip.npy", npy(CLIP))
    loader = loaders()
    assert np.array_equal(load(loader, "s3://styles/depth/clip.npy"), CLIP)
    for location in ("s3://styles/depth/frames", "s3://styles/depth/frames/"):
        assert np.array_equal(load(loader, location), np.rint(65535 * CLIP).astype(np.float32))
