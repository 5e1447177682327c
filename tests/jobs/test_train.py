"""The training jobs from the command line, without training: flags, help, dry runs, refusals."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import train_base, train_depth, train_joint, train_style, train_temporal
from jobs._cli import run_job
from schemas.run import ExitCode
from tests.support.training_data import write_manifest

JOBS = {
    "base": train_base,
    "style": train_style,
    "temporal": train_temporal,
    "joint": train_joint,
    "depth": train_depth,
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a job in this process as its command line would: exit code, stdout, stderr."""

    def job(stage: str, *flags: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"jobs.train_{stage}", *flags])
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as stopped:
            run_job(JOBS[stage].main)
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return job


@pytest.fixture
def flags(training_model: Path, demo_world: str, tmp_path: Path) -> list[str]:
    output = str(tmp_path / "out")
    return ["--data", demo_world, "--model", str(training_model), "--output", output]


def numbers(table: str, row: str) -> list[str]:
    [line] = [line for line in table.splitlines() if row in line]
    return [
        word for word in line.replace("│", " ").replace("┃", " ").split() if word[0].isdigit() or word == "-"
    ]


@pytest.mark.parametrize(
    ("stage", "adapter", "temporal"),
    [
        ("style", "111,188,161", "-"),
        ("temporal", "0", "278,575,232"),
        pytest.param("joint", "111,188,161", "278,575,232", marks=pytest.mark.slow),
    ],
)
def test_a_dry_run_counts_the_published_parameters(stage: str, adapter: str, temporal: str, run: Run) -> None:
    styles = ["--style-data", "s.parquet"] if stage != "style" else []
    sizes = ["--height", "64", "--width", "64", "--num-frames", "2", "--image-batch", "1"]
    code, out, err = run(
        stage, "--data", "x", "--model", "published", "--output", "y", "--dry-run", *styles, *sizes
    )
    assert (code, err) == (0, "")
    assert numbers(out, "adapter, all of it") == ["111,188,161", adapter]
    assert numbers(out, "unet.temporal") == ["278,575,232", temporal]
    assert "GiB" in out


def test_a_dry_run_of_the_depth_stage(run: Run, flags: list[str]) -> None:
    code, out, err = run("depth", *flags, "--dry-run")
    assert (code, err) == (0, "")
    total, trained = numbers(out, "depth_adapter")
    assert total == trained
    assert "GiB" in out


def test_sharding_over_more_workers_takes_less_memory_of_each(run: Run, flags: list[str]) -> None:
    def total(*more: str) -> float:
        code, out, _ = run("style", *flags, "--dry-run", "--height", "512", "--width", "512", *more)
        assert code == 0
        return float(numbers(out, "  weights")[0])

    one, four = (
        total("--precision", "float32"),
        total("--precision", "float32", "--workers", "4", "--strategy", "fsdp"),
    )
    assert total("--precision", "float32", "--workers", "4") == one
    assert four <= one


@pytest.mark.parametrize("stage", JOBS)
def test_help_says_what_the_job_does_and_needs(stage: str, run: Run) -> None:
    code, out, err = run(stage, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: python -m jobs.train_{stage} [--config FILE.yaml] --data URI")
    for title in ("the optimisation", "what a micro-batch is", "what is written and when"):
        assert f"\n{title}:" in out
    assert ("--style-data URI" in out) == (stage in ("temporal", "joint"))
    assert ("--drop-style" in out) == (stage not in ("base", "depth"))
    assert ("--fusion" in out) == (stage in ("style", "joint"))
    assert max(len(line) for line in out.splitlines()[1:]) <= 100


@pytest.mark.parametrize(
    ("stage", "more", "told"),
    [
        ("style", ["--steps", "20"], "warmup_steps = 100: must be less than steps = 20"),
        ("style", ["--learning-rate", "0"], "--learning-rate '0': must be a number above 0 and at most 1"),
        ("style", ["--image-share", "0.5"], "image_share = 0.5: stage 1 trains on images alone, must be 1"),
        ("style", ["--fusion", "fixed", "--no-new-adapter"], "fusion = fixed: needs a new adapter"),
        ("style", ["--fusion", "fixed", "--scale-penalty", "1"], "scale_penalty = 1: only adaptive fusion"),
        ("style", ["--ema", "0.9"], "unknown flag --ema; did you mean --ema-decay?"),
        ("temporal", [], "--style-data is required"),
        ("temporal", ["--style-data", "x", "--new-adapter"], "unknown flag --new-adapter"),
        ("base", ["--drop-style", "0.1"], "unknown flag --drop-style"),
        ("depth", [], "no row can be used: depth_uri is missing"),
    ],
)
def test_a_wrong_flag_is_one_message(
    stage: str, more: list[str], told: str, run: Run, flags: list[str]
) -> None:
    code, out, err = run(stage, *flags, *more)
    assert (code, out) == (ExitCode.USAGE, "")
    assert told in err
    assert err.count("error:") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"uri": "a.png"}], "caption"),
        ([{"uri": "a.png", "caption": None}], "no row can be used: caption is missing (1 rows)"),
        ([{"uri": "a.mp4", "caption": "x"}], "image_share = 1 needs images"),
    ],
)
def test_a_bad_manifest_is_one_message(
    rows: list[dict[str, str | None]], told: str, run: Run, flags: list[str], tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path / "m.parquet", rows)
    code, out, err = run("style", *flags, "--data", manifest)
    assert (code, out) == (ExitCode.USAGE, "")
    assert told in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1


def test_what_is_missing_is_one_message(run: Run, flags: list[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    for flag in ("--data", "--model"):
        code, out, err = run("style", *flags, flag, missing)
        assert (code, out) == (ExitCode.USAGE, "")
        assert missing in err
        assert len(err.splitlines()) == 1
    code, _, err = run("style", *flags, "--model", missing, "--dry-run")
    assert code == ExitCode.USAGE
    assert f"model = {missing!r}: no generation_config.json there" in err


def test_help_does_not_wait_for_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "jobs.train_style", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert not any(line.endswith("| torch") for line in done.stderr.splitlines())
