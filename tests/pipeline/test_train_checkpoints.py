"""Which checkpoints a run has, whatever was going on when it was stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from actors.storage import Storage
from pipeline.train_checkpoints import Checkpoints
from pipeline.train_state import STATE_FILE
from schemas.run import InfrastructureError
from schemas.train_run import TrainStyleRun


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "out")
    else:
        request.getfixturevalue("s3_env")
        yield f"s3://outputs/{tmp_path.name}"


def checkpoints_of(output: str, keep: int = 2) -> Checkpoints:
    return Checkpoints(Storage(), TrainStyleRun(data="d", model="m", output=output, keep_checkpoints=keep))


def state(folder: Path, step: int) -> Path:
    """A folder with a file like a checkpoint's."""
    torch.save({"step": step, "weights": [torch.ones(50_000)]}, folder / STATE_FILE)
    return folder


def names(output: str) -> set[str]:
    return {
        stat.uri.removeprefix(f"{output}/checkpoints/") for stat in Storage().list(f"{output}/checkpoints")
    }


def test_a_run_that_has_not_begun_has_none(output: str) -> None:
    assert checkpoints_of(output).newest_step() is None


def test_the_newest_are_kept(output: str, tmp_path: Path) -> None:
    checkpoints = checkpoints_of(output, keep=2)
    for step in (9, 10, 100_000_000, 100_000_001):
        checkpoints.save(state(tmp_path, step), step)
        assert checkpoints.newest_step() == step
    assert names(output) == {"step-100000000/state.pt", "step-100000001/state.pt"}
    if not output.startswith("s3:"):
        assert len(list(Path(output, "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.999])
def test_what_is_half_written_is_none(output: str, tmp_path: Path, share: float) -> None:
    checkpoints, storage = checkpoints_of(output, keep=1), Storage()
    checkpoints.save(state(tmp_path, 20), 20)
    whole = (tmp_path / STATE_FILE).read_bytes()
    storage.write_bytes(f"{output}/checkpoints/step-00000060/{STATE_FILE}", whole[: int(len(whole) * share)])
    storage.write_bytes(f"{output}/checkpoints/step-00000080/.0123.tmp", whole)
    assert checkpoints.newest_step() == 20
    checkpoints.save(state(tmp_path, 40), 40)
    assert checkpoints.newest_step() == 40
    assert names(output) == {"step-00000040/state.pt"} | ({"step-00000080/.0123.tmp"} & names(output))


def test_rays_list_does_not_matter(output: str, tmp_path: Path) -> None:
    checkpoints = checkpoints_of(output)
    checkpoints.delete_list_of_ray()  # there is none
    checkpoints.save(state(tmp_path, 20), 20)
    Storage().write_bytes(f"{output}/checkpoints/checkpoint_manager_snapshot.json", b'{"checkpoint_res')
    assert checkpoints.newest_step() == 20
    checkpoints.delete_list_of_ray()
    assert names(output) == {"step-00000020/state.pt"}


def test_an_upload_is_seen_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = checkpoints_of(str(tmp_path / "out"))
    seen: list[int | None] = []

    def look(source: object, target: object, size: int) -> None:
        seen.append(checkpoints.newest_step())

    monkeypatch.setattr("shutil.copyfileobj", look)
    with pytest.raises(Exception, match="bytes were written"):
        checkpoints.save(state(tmp_path, 20), 20)
    assert seen == [None]
    assert checkpoints.newest_step() is None


def test_a_file_that_cannot_be_read_is_no_reason_to_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = checkpoints_of(str(tmp_path / "out"))
    checkpoints.save(state(tmp_path, 20), 20)

    def broken(*args: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("zipfile.ZipFile", broken)
    with pytest.raises(
        InfrastructureError, match=r"step-00000020/state.pt: cannot be accessed: the disk is gone"
    ):
        checkpoints.newest_step()
