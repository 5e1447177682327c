"""Micro-batches from small manifests, without Ray."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from actors.micro_batch import MicroBatch, from_table, to_table
from actors.storage import Storage
from actors.training_rows import read_training_rows
from actors.training_samples import TrainingSamples
from schemas.data_plan import DataPlan
from schemas.manifest import ManifestError
from schemas.run import InfrastructureError, UsageError
from tests.support.training_data import write_clip, write_manifest, write_picture, write_world

PIXELS = {"size": 8, "reference_size": 16}
Make = Callable[..., TrainingSamples]


@pytest.fixture
def make() -> Iterator[Make]:
    """Builds TrainingSamples of small sizes, and ends their processes."""
    made: list[TrainingSamples] = []

    def build(manifest: str, **changes: Any) -> TrainingSamples:
        values: dict[str, Any] = {
            "manifests": (manifest,),
            "height": 16,
            "width": 24,
            "num_frames": 4,
            "image_batch": 2,
            "video_batch": 2,
            "reference_pixels": PIXELS,
            "patience_s": 0,
        }
        made.append(TrainingSamples(DataPlan(**(values | changes))))
        return made[-1]

    yield build
    for samples in made:
        samples.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_world(tmp_path_factory.mktemp("world"))


def same(left: MicroBatch, right: MicroBatch) -> bool:
    references = (left.reference_B3HW, right.reference_B3HW)
    return (
        (left.index, left.kind, left.captions, left.problems)
        == (right.index, right.kind, right.captions, right.problems)
        and np.array_equal(left.positions_B, right.positions_B)
        and np.array_equal(left.target_BTHWC, right.target_BTHWC)
        and (None in references if references[0] is None or references[1] is None else True)
        and (references[0] is None) == (references[1] is None)
        and (references[0] is None or np.array_equal(*references))
    )


def test_an_image_micro_batch(make: Make, world: str) -> None:
    batch = make(world).micro_batch(1)
    assert (batch.index, batch.kind) == (1, "image")
    assert batch.positions_B.tolist() == [2, 3]
    assert batch.target_BTHWC.shape == (2, 1, 16, 24, 3)
    assert batch.target_BTHWC.dtype == np.uint8
    assert batch.reference_B3HW is not None
    assert batch.reference_B3HW.shape == (2, 3, 8, 8)
    assert batch.reference_B3HW.dtype == np.float32
    assert all(caption.startswith("picture ") for caption in batch.captions)
    assert batch.problems == []


def test_real_videos_have_no_reference(make: Make, world: str) -> None:
    batch = make(world, image_share=0.5).micro_batch(0)
    assert batch.kind == "video"
    assert batch.target_BTHWC.shape == (2, 4, 16, 24, 3)
    assert batch.reference_B3HW is None
    assert make(world, image_share=0.5).micro_batch(1).reference_B3HW is not None
    assert make(world, image_share=0.5, references=False).micro_batch(1).reference_B3HW is None


def test_styled_videos_have_one(make: Make, tmp_path: Path) -> None:
    uris = [write_clip(tmp_path / f"{index}.mp4", 40 * index, frames=5) for index in range(2)]
    rows = [{"uri": uri, "caption": "x", "style_id": "s"} for uri in uris]
    made = make(write_manifest(tmp_path / "m.parquet", rows), image_share=0)
    reference = made.micro_batch(0).reference_B3HW
    assert reference is not None
    assert reference.shape == (2, 3, 8, 8)


def test_micro_batches_are_a_function_of_their_index(make: Make, world: str) -> None:
    one, other = (make(world, image_share=0.4, other_reference_share=0.5) for _ in range(2))
    there = [one.micro_batch(index) for index in range(12)]
    back = [other.micro_batch(index) for index in reversed(range(12))]
    assert all(same(*pair) for pair in zip(there, reversed(back), strict=True))


def test_the_cache_changes_nothing(make: Make, world: str) -> None:
    one, other = make(world, image_share=0.4), make(world, image_share=0.4, cache_bytes=0)
    assert all(same(one.micro_batch(index), other.micro_batch(index)) for index in range(12))


def test_the_next_epoch_augments_otherwise(make: Make, world: str) -> None:
    made = make(world, image_batch=5)
    first, second = (
        dict(zip(batch.captions, batch.reference_B3HW, strict=True))
        for batch in map(made.micro_batch, range(2))
    )
    assert first.keys() == second.keys()
    assert all(not np.array_equal(first[caption], second[caption]) for caption in first)


def test_without_augmentation_the_reference_is_the_middle(make: Make, world: str) -> None:
    made = make(world, image_batch=5, augment_references=False)
    first, second = (
        dict(zip(batch.captions, batch.reference_B3HW, strict=True))
        for batch in map(made.micro_batch, range(2))
    )
    assert all(np.array_equal(first[caption], second[caption]) for caption in first)


def test_the_targets_do_not_depend_on_the_references_switches(make: Make, world: str) -> None:
    plain = make(world, image_share=0.5, augment_references=False)
    other = make(world, image_share=0.5, other_reference_share=1)
    for index in range(6):
        left, right = plain.micro_batch(index), other.micro_batch(index)
        assert np.array_equal(left.target_BTHWC, right.target_BTHWC)


def test_references_from_another_picture_of_the_style(make: Make, tmp_path: Path) -> None:
    rows = []
    for index, style in enumerate("aab"):
        Image.new("RGB", (40, 40), (80 * index, 0, 0)).save(tmp_path / f"{index}.png")
        rows.append({"uri": f"{index}.png", "caption": str(index), "style_id": style})
    manifest = write_manifest(tmp_path / "m.parquet", rows)
    pixels = PIXELS | {"mean": (0, 0, 0), "std": (1, 1, 1)}

    def references(**changes: Any) -> dict[str, int]:
        batch = make(manifest, image_batch=3, reference_pixels=pixels, **changes).micro_batch(0)
        assert batch.reference_B3HW is not None
        reds = batch.reference_B3HW[:, 0].mean(axis=(1, 2)) * 255 / 80
        return dict(zip(batch.captions, np.rint(reds).astype(int).tolist(), strict=True))

    assert references() == {"0": 0, "1": 1, "2": 2}
    assert references(other_reference_share=1) == {"0": 1, "1": 0, "2": 2}


def test_captions_are_destyled_if_asked(make: Make, tmp_path: Path) -> None:
    uri = write_picture(tmp_path / "0.png", 0)
    text = "a watercolor painting of a dog, in the style of monet"
    manifest = write_manifest(tmp_path / "m.parquet", [{"uri": uri, "caption": text}])
    assert make(manifest).micro_batch(0).captions == [text] * 2
    assert make(manifest, destyle_captions=True).micro_batch(0).captions == ["a dog"] * 2


def windows(made: TrainingSamples, count: int) -> set[tuple[int, ...]]:
    """The frame numbers of clips whose frame t has the brightness 8 t."""
    found = set()
    for index in range(count):
        levels = made.micro_batch(index).target_BTHWC[:, :, 8, 8, 0]
        found |= {tuple(row) for row in np.rint(levels / 8).astype(int).tolist()}
    return found


@pytest.mark.parametrize("longest", [1024, 5])
def test_windows_of_longer_videos(make: Make, tmp_path: Path, longest: int) -> None:
    """Decoded as a whole, and by seeking."""
    uri = write_clip(tmp_path / "0.mp4", 0, frames=8, size=(48, 20))
    manifest = write_manifest(tmp_path / "m.parquet", [{"uri": uri, "caption": "x"}])
    limits = {"max_video_frames": longest}
    made = make(manifest, image_share=0, video_batch=8, limits=limits)
    assert windows(made, 10) == {tuple(range(first, first + 4)) for first in range(5)}
    if longest > 8:
        made = make(manifest, image_share=0, video_batch=8, frame_stride=2, limits=limits)
        assert windows(made, 10) == {(0, 2, 4, 6), (1, 3, 5, 7)}


def test_shorter_videos_are_stretched(make: Make, tmp_path: Path) -> None:
    uri = write_clip(tmp_path / "0.mp4", 0, frames=2)
    manifest = write_manifest(tmp_path / "m.parquet", [{"uri": uri, "caption": "x"}])
    assert windows(make(manifest, image_share=0), 1) == {(0, 0, 1, 1)}


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """Six rows, of which the even ones cannot be read."""
    uris = []
    for index in range(6):
        uris.append(write_picture(tmp_path / f"{index}.png", index))
    Path(uris[0]).write_bytes(b"<svg/>")
    Path(uris[2]).unlink()
    uris[4] = "gs://bucket/4.png"
    return write_manifest(
        tmp_path / "m.parquet", [{"uri": uri, "caption": str(n)} for n, uri in enumerate(uris)]
    )


def test_what_cannot_be_read_is_replaced_and_reported(make: Make, broken: str) -> None:
    batch = make(broken, image_batch=6).micro_batch(0)
    assert set(batch.captions) == set("135")
    assert len(batch.problems) >= 3
    for words in ("SVG", "2.png", "scheme 'gs' is not allowed"):
        assert any(words in problem for problem in batch.problems)
    assert all("is used" in problem and "at position" in problem for problem in batch.problems)
    assert same(batch, make(broken, image_batch=6).micro_batch(0))


def test_a_reference_that_cannot_be_read_is_replaced_and_reported(make: Make, tmp_path: Path) -> None:
    good = write_picture(tmp_path / "0.png", 0)
    rows = [{"uri": uri, "caption": "x", "style_id": "s"} for uri in (good, "none.png")]
    made = make(write_manifest(tmp_path / "m.parquet", rows), other_reference_share=1)
    batch = made.micro_batch(0)
    assert batch.reference_B3HW is not None
    assert any("as reference" in problem for problem in batch.problems)


def test_when_nothing_can_be_read(make: Make, tmp_path: Path) -> None:
    rows = [{"uri": f"{index}.png", "caption": "x"} for index in range(50)]
    with pytest.raises(UsageError, match=r"none of 32 rows in a row can be read; the last: .*png"):
        make(write_manifest(tmp_path / "m.parquet", rows)).micro_batch(0)


def test_a_storage_that_is_down_is_no_rows_fault(
    make: Make, tmp_path: Path, s3_env: Any, monkeypatch: pytest.MonkeyPatch, short_pauses: None
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    manifest = write_manifest(tmp_path / "m.parquet", [{"uri": "s3://styles/0.png", "caption": "x"}])
    with pytest.raises(InfrastructureError):
        make(manifest, limits={"fetch_retries": 0, "fetch_timeout_s": 2}).micro_batch(0)


def test_from_s3(make: Make, s3_env: Any, world: str) -> None:
    client, folder = s3_env.client(), Path(world).parent
    for path in folder.iterdir():
        client.put_object(Bucket="styles", Key=f"train/{path.name}", Body=path.read_bytes())
    local, remote = make(world, image_share=0.5), make("s3://styles/train/", image_share=0.5)
    assert all(same(local.micro_batch(index), remote.micro_batch(index)) for index in range(4))


def test_a_kind_of_which_there_is_nothing(make: Make, tmp_path: Path) -> None:
    uri = write_picture(tmp_path / "0.png", 0)
    manifest = write_manifest(tmp_path / "m.parquet", [{"uri": uri, "caption": "x"}])
    with pytest.raises(UsageError, match=r"image_share = 0.2 needs videos, but the manifests have 1 images"):
        make(manifest, image_share=0.2).micro_batch(0)


def test_broken_manifests_name_file_and_column(tmp_path: Path) -> None:
    def failure(*manifests: str) -> str:
        with pytest.raises(ManifestError) as failed:
            read_training_rows(Storage(), manifests)
        return str(failed.value)

    lacking = tmp_path / "lacking.parquet"
    pq.write_table(pa.table({"uri": ["a.png"], "text": ["x"]}), lacking)
    assert "lacking.parquet" in failure(str(lacking))
    assert "'caption'" in failure(str(lacking))
    (tmp_path / "text.parquet").write_text("no parquet")
    assert "not a readable Parquet file" in failure(str(tmp_path / "text.parquet"))
    assert "none.parquet" in failure(str(tmp_path / "none.parquet"))
    empty = write_manifest(tmp_path / "empty.parquet", [{"uri": "a.txt", "caption": "x"}])
    assert "cannot be told by the suffix (1 rows)" in failure(empty)


def test_broken_files_cost_their_own_rows_and_are_told(world: str, tmp_path: Path) -> None:
    whole = read_training_rows(Storage(), [world])
    folder = tmp_path / "shards"
    folder.mkdir()
    good = Path(world).read_bytes()
    for number, body in enumerate([b"no parquet", good, good[: len(good) // 2], b"", b"x", b"y", b"z"]):
        (folder / f"{number}.parquet").write_bytes(body)
    rows = read_training_rows(Storage(), [str(folder)])
    assert rows.counts == whole.counts
    assert rows.fingerprint == whole.fingerprint
    assert rows.row("image", 0).location.startswith(str(folder))
    first, *files, last = rows.warnings
    assert first == "6 of 7 manifest files cannot be read, and their rows are left out"
    for number, said in zip("02345", files, strict=True):
        assert f"{number}.parquet: not a readable Parquet file" in said
    assert last == "and 1 more files"


def test_several_manifests_and_their_relative_addresses(make: Make, world: str, tmp_path: Path) -> None:
    shutil.copytree(Path(world).parent, tmp_path / "copy")
    rows = read_training_rows(Storage(), [world, str(tmp_path / "copy")])
    assert rows.counts == {"image": 10, "video": 6}
    assert rows.row("image", 5).location == str(tmp_path / "copy" / "0.png")
    assert rows.row("video", 2).location == str(Path(world).parent / "2.mp4")
    assert list(rows.of_the_same_style("image", 2, "image")) == [0, 4, 5, 7, 9]
    assert list(rows.of_the_same_style("image", 1, "video")) == []
    assert list(rows.of_the_same_style("video", 1, "image")) == []
    once = read_training_rows(Storage(), [world])
    assert once.fingerprint == read_training_rows(Storage(), [world]).fingerprint != rows.fingerprint


def test_depth_is_of_the_same_frames_and_the_same_crop(make: Make, tmp_path: Path) -> None:
    # Frame t of a video is as bright as its number; its depth is that and 100.
    rows = [
        {
            "uri": write_clip(tmp_path / f"{i}.mp4", 20, frames=12, step=5),
            "depth_uri": write_clip(tmp_path / f"{i}_depth.mp4", 120, frames=12, step=5),
            "caption": "x",
        }
        for i in range(2)
    ]
    rows.append({"uri": write_clip(tmp_path / "none.mp4", 0), "depth_uri": None, "caption": "no depth"})
    picture = write_picture(tmp_path / "p.png", 4)
    rows.append({"uri": picture, "depth_uri": "p.png", "caption": "y"})
    made = make(
        write_manifest(tmp_path / "m.parquet", rows),
        depth=True,
        references=False,
        image_share=0.5,
        image_batch=1,
    )
    for index in range(4):
        batch = made.micro_batch(index)
        assert batch.depth_BTHWC is not None
        assert batch.depth_BTHWC.shape == batch.target_BTHWC.shape
        assert "no depth" not in batch.captions
        added = 100 if batch.kind == "video" else 0
        difference = batch.depth_BTHWC.astype(int) - batch.target_BTHWC
        assert np.abs(difference - added).max() <= 3
        [back] = from_table(to_table([batch]))
        assert back.depth_BTHWC is not None
        assert np.array_equal(back.depth_BTHWC, batch.depth_BTHWC)


def test_blocks_travel_as_arrow(make: Make, world: str) -> None:
    made = make(world, image_share=0.5)
    table = made(pa.table({"first": [1], "stop": [7], "step": [2]}))
    found = list(from_table(table))
    assert [batch.index for batch in found] == [1, 3, 5]
    assert all(same(batch, made.micro_batch(batch.index)) for batch in found)
    assert found[0].target_BTHWC.flags.writeable
