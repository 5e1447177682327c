"""Every command of the documentation is run, unless the page says that it needs what a laptop has not.

In one folder that has what the pages speak of (a model directory MODEL_DIR, a bucket named `bucket`, an output OUT),
page after page, in this process: renders and evaluations without Ray, everything else as from a shell. The quick
start and the training on two cores are run as they stand, by a shell.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.video_codec import encode_mp4
from examples.s3_server import S3Server
from jobs._cli import run_job
from schemas.run import ExitCode
from tests.support.docs import BLOCKS, DOCS, ROOT, Block, blocks_of
from tests.support.rendering import render_in_process

pytestmark = pytest.mark.slow

_TRAINED_IN_A_SHELL = "outputs/try"
RUNNABLE = [
    block for block in BLOCKS
    if list(block.to_run) and block.page != "quick-start.md" and _TRAINED_IN_A_SHELL not in block.body
]  # fmt: skip


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def place(
    patch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    training_model: Path,
    pictures: Path,
) -> Iterator[Path]:
    """The folder, which is the process's own meanwhile."""
    place = tmp_path_factory.mktemp("reader")
    for name, model in {"MODEL_DIR": tiny_model, "CLIP_DIR": tiny_model, "BASE_DIR": training_model}.items():
        (place / name).symlink_to(model)
    for folder in ("styles", "STYLES", "pictures"):
        (place / folder).mkdir()
        for index in range(2):
            shutil.copy(pictures / f"{index}.png", place / folder)
    (place / "prompts.txt").write_text("a lighthouse\na fox in the snow\n")
    (place / "rows.csv").write_text("prompt,style_image_uri\na fox,styles/0.png\n")
    (place / "eval_video_gen_single_ref_full.json").write_text(
        json.dumps([{"prompt": f"A fox {n}.", "style_path": f"{n}.png"} for n in range(2)])
    )
    (place / "pictures" / "0.txt").write_text("a fox")
    (place / "pictures" / "1.txt").write_text("a house")
    (place / "videos").mkdir()
    encode_mp4(np.full((8, 32, 32, 3), 99, np.uint8), place / "videos" / "a.mp4", fps=8, crf=23)
    (place / "videos" / "a.txt").write_text("a fox")
    patch.chdir(place)
    with S3Server(tmp_path_factory.mktemp("s3"), buckets=("bucket",)) as server:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in server.environment().items():
            patch.setenv(name, value)
        _fill(server, tiny_model, place)
        _compute_here(patch)
        _prepare(place, server)
        yield place


def _compute_here(patch: pytest.MonkeyPatch) -> None:
    import pipeline.evaluate
    from actors.evaluator import VideoEvaluator

    def evaluate_videos(config: Any, records: Any, run: Any) -> Iterator[dict[str, Any]]:
        yield from VideoEvaluator(config)(pa.Table.from_pylist(records)).to_pylist()

    render_in_process(patch)
    patch.setattr(pipeline.evaluate, "evaluate_videos", evaluate_videos)


def _fill(server: S3Server, model: Path, place: Path) -> None:
    client = server.client()
    files = {f"models/MODEL/{file.relative_to(model)}": file for file in model.rglob("*") if file.is_file()}
    files |= {f"styles/{file.name}": file for file in (place / "styles").iterdir()}
    for key, file in files.items():
        client.put_object(Bucket="bucket", Key=key, Body=file.read_bytes())


def _prepare(place: Path, server: S3Server) -> None:
    """What pages take as given: manifests, and outputs of earlier renders."""
    manifest = "--prompts prompts.txt --styles styles/ --limit 2 --output manifest.parquet"
    assert call("jobs.manifest", manifest.split()) == ExitCode.DONE
    shutil.copy("manifest.parquet", "test.parquet")
    body = Path("manifest.parquet").read_bytes()
    server.client().put_object(Bucket="bucket", Key="manifests/a.parquet", Body=body)
    for output in ("OUT", "OUT_A", "OUT_B", "s3://bucket/run"):
        render = f"--manifest manifest.parquet --model MODEL_DIR --output {output}"
        assert call("jobs.render", render.split()) == ExitCode.DONE
    for output in ("OUT_A", "OUT_B"):
        assert call("jobs.evaluate", ["--output", output, "--finished"]) == ExitCode.DONE
    config = {"manifest": "manifest.parquet", "model": "MODEL_DIR", "output": "outputs/configured"}
    (place / "run.yaml").write_text(json.dumps(config))


def call(job: str, arguments: list[str]) -> int:
    """A job's exit code."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", [job, *arguments])
        run_job(importlib.import_module(job).main)
    return int(ended.value.code or 0)


def write_votes() -> None:
    """Two raters' ballots for the study that the command before made."""
    key = json.loads(Path("study/key.json").read_text())
    Path("votes").mkdir(exist_ok=True)
    for rater, choice in (("ada", "first"), ("bo", "same")):
        votes = [
            {"trial": name, "question": question, "choice": choice}
            for name in key["trials"]
            for question in ("text", "style", "temporal")
        ]
        ballot = {"study": key["study"], "rater": rater, "votes": votes}
        Path("votes", f"{rater}.json").write_text(json.dumps(ballot))


@pytest.fixture
def as_given(place: Path) -> Iterator[None]:
    """What a page's commands write over is what pages take as given again."""
    kept = Path("manifest.parquet").read_bytes(), Path("test.parquet").read_bytes()
    yield
    Path("manifest.parquet").write_bytes(kept[0])
    Path("test.parquet").write_bytes(kept[1])


@pytest.mark.usefixtures("as_given")
@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: f"{block.page}: {next(block.to_run)[:9]}")
def test_a_command_does_what_its_page_says(
    block: Block, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for words in block.to_run:
        if words[0] == ".":  # the tests run in the project's environment already
            continue
        assert words[:2] == ["python", "-m"], f"{block.page}: run {words}, or say what it needs"
        if "--collect" in words:
            write_votes()
        # A date that is over ends the run at once, which is what its page says.
        expected = ExitCode.STOPPED if "--stop-at" in words else ExitCode.DONE
        code = call(words[2], words[3:])
        assert code == expected, f"{block.page}: {' '.join(words)}\n{''.join(capfd.readouterr())}"


@pytest.mark.parametrize("page", ["quick-start.md", "training.md"])
def test_a_path_through_the_pages_works_in_an_empty_folder(page: str, tmp_path: Path) -> None:
    from examples.demo import write_styles

    write_styles(
        tmp_path / "outputs" / "demo" / "styles"
    )  # what `make demo` leaves; it has a test of its own
    (tmp_path / "tests").symlink_to(ROOT / "tests")  # checkpoints that training.md begins with
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    for block in blocks_of(DOCS / page):
        if block.needs or (page == "training.md" and _TRAINED_IN_A_SHELL not in block.body):
            continue
        done = subprocess.run(
            ["bash", "-c", f"set -e\n{block.body}"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block.body}\n{done.stdout}\n{done.stderr}"
    if page == "training.md":
        assert (tmp_path / "outputs" / "try" / "joint" / "model" / "fingerprint").is_file()
        return
    run = tmp_path / "outputs" / "quick" / "run"
    assert (run / "_SUCCESS").exists()
    assert (run / "run" / "report.html").exists()
    assert len(list(run.rglob("videos/**/*.mp4"))) == 2
