"""Configs from flags and YAML, and what a user is told when they are wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from jobs._cli import load_config
from schemas.run import ExitCode, FetchLimits, RenderRun
from schemas.speed import SpeedSettings

REQUIRED = ["--manifest", "m.parquet", "--model", "model", "--output", "out"]


def load(*argv: str, model: type[Any] = RenderRun) -> Any:
    return load_config(model, argv, prog="python -m jobs.x", description="Says what it does.")


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Loads arguments that must be refused; returns the one message on stderr."""

    def refuse(*argv: str, model: type[Any] = RenderRun) -> str:
        with pytest.raises(SystemExit) as stopped:
            load(*argv, model=model)
        assert stopped.value.code == ExitCode.USAGE
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("python -m jobs.x: error: ")
        assert err.count("error:") == 1
        assert err.endswith("\nSee python -m jobs.x --help.\n")
        assert "Traceback" not in err
        return err

    return refuse


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_required_flags_alone_give_the_defaults() -> None:
    assert load(*REQUIRED) == RenderRun(manifest="m.parquet", model="model", output="out")


SPEED_SWITCHES = [
    f"--speed.{name.replace('_', '-')}"
    for name in SpeedSettings.model_fields
    if name != "attention_broadcast"
]


def test_every_field_has_a_flag_that_sets_it() -> None:
    given = {
        "--run-id": "nightly",
        "--seed": "7",
        "--limit": "24",
        "--mode": "video",
        "--num-frames": "8",
        "--height": "64",
        "--width": "128",
        "--fps": "4",
        "--num-inference-steps": "5",
        "--text-guidance-scale": "12.5",
        "--style-guidance-scale": "5",
        "--style-scale": "0.5",
        "--negative-prompt": "blurry",
        "--guidance": "paper",
        "--eta": "0",
        "--crf": "20",
        "--style-scale-structure": "0.5",
        "--style-scale-texture": "2",
        "--scheduler": "dpm++",
        "--guidance-start": "0.1",
        "--guidance-end": "0.9",
        "--conditioning-fps": "24",
        "--depth-normalization": "frame",
        "--render-epoch": "1",
        "--actors": "2",
        "--batch-size": "3",
        "--unit-rows": "4",
        "--cpus-per-actor": "1.5",
        "--gpus-per-actor": "0.5",
        "--dtype": "float32",
        "--max-failed-fraction": "0.1",
        "--price-per-gpu-hour": "1.2",
        "--max-cost": "40",
        "--max-hours": "8",
        "--stop-at": "2026-03-01T06:00+01:00",
        "--render-timeout-s": "60",
        "--storage-patience-s": "30",
        "--preset": "fast",
        "--wait-for-gpus": "4",
        "--wait-for-gpus-s": "60",
        "--image-format": "jpeg",
        "--frame-window": "16",
        "--safety.model": "classifier",
        "--jpeg-quality": "80",
        "--log-format": "json",
        "--limits.fetch-timeout-s": "5",
        "--limits.fetch-retries": "1",
        "--limits.max-image-bytes": "1000",
        "--limits.max-image-pixels": "2000",
        "--limits.decode-timeout-s": "3",
        "--limits.decode-memory-bytes": "268435456",
        "--limits.max-video-bytes": "1000",
        "--limits.max-video-pixels": "2000",
        "--limits.max-video-frames": "64",
        "--limits.video-timeout-s": "9",
    }
    argv = [part for flag, value in given.items() for part in (flag, value)]
    lists = [
        "--limits.input-schemes",
        "s3",
        "https",
        "--limits.input-roots",
        "s3://a",
        "--no-scores",
        "--profile",
    ]
    lists += ["--speed.attention-broadcast", "2", "4", "6", *SPEED_SWITCHES]
    run = load(*REQUIRED, *argv, *lists)
    default = load(*REQUIRED)
    assert run.speed.model_dump() == {
        name: (2, 4, 6) if name == "attention_broadcast" else True for name in SpeedSettings.model_fields
    }
    fields = set(RenderRun.model_fields) - {"manifest", "model", "output", "limits", "sweep"}
    assert {name for name in fields if getattr(run, name) == getattr(default, name)} == set()
    limits = {n for n in FetchLimits.model_fields if getattr(run.limits, n) == getattr(default.limits, n)}
    assert limits == set()
    assert (run.num_frames, run.eta, run.scores, run.limits.input_schemes) == (8, 0.0, False, ("s3", "https"))


def test_a_list_may_repeat_its_flag() -> None:
    run = load(*REQUIRED, "--limits.input-roots", "s3://a", "--limits.input-roots", "s3://b", "/c")
    assert run.limits.input_roots == ("s3://a", "s3://b", "/c")


def test_flags_win_over_yaml_and_yaml_over_defaults(config_file: Callable[[str], str]) -> None:
    file = config_file(
        "manifest: y.parquet\nbatch_size: 4\nactors: 2\nscores: false\nlimits: {fetch_retries: 9, fetch_timeout_s: 5}"
    )
    run = load("--config", file, *REQUIRED, "--batch-size", "8", "--scores", "--limits.fetch-retries", "1")
    assert (run.manifest, run.batch_size, run.actors, run.scores) == ("m.parquet", 8, 2, True)
    assert (run.limits.fetch_retries, run.limits.fetch_timeout_s) == (1, 5.0)
    assert run.unit_rows == 0


def test_required_fields_may_stand_in_the_yaml(config_file: Callable[[str], str]) -> None:
    file = config_file("manifest: m\nmodel: d\noutput: o\n# a comment\n")
    assert load("--config", file) == RenderRun(manifest="m", model="d", output="o")


def test_an_empty_yaml_says_nothing(config_file: Callable[[str], str]) -> None:
    assert load("--config", config_file(""), *REQUIRED) == load(*REQUIRED)


def test_the_environment_is_not_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEED", "MODEL", "BATCH_SIZE", "RENDER_SEED"):
        monkeypatch.setenv(name, "5")
    assert load(*REQUIRED) == RenderRun(manifest="m.parquet", model="model", output="out")


def test_a_date_in_yaml_is_a_name_like_any_other(config_file: Callable[[str], str]) -> None:
    assert load("--config", config_file("run_id: 2026-01-02"), *REQUIRED).run_id == "2026-01-02"


def test_missing_required_fields_are_told_together(refusal: Callable[..., str]) -> None:
    assert "--model, --output are required" in refusal("--manifest", "m")
    assert "--output is required" in refusal("--manifest", "m", "--model", "d")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--bath-size", "3"], "unknown flag --bath-size; did you mean --batch-size?"),
        (["--batch_size=3"], "unknown flag --batch_size; did you mean --batch-size?"),
        (["--batch", "3"], "unknown flag --batch; did you mean"),
        (["--fetch-timeout-s", "3"], "did you mean --limits.fetch-timeout-s?"),
        (["--zzzzzzzz"], "unknown flag --zzzzzzzz\n"),
        (["stray"], "unexpected argument 'stray'"),
        (["--batch-size"], "--batch-size"),
        (["--batch-size", "0"], "--batch-size '0': must be a whole number from 1 to 64"),
        (["--batch-size", "two"], "--batch-size 'two': must be a whole number from 1 to 64"),
        (["--max-failed-fraction", "2"], "--max-failed-fraction '2': must be a number from 0 to 1"),
        (["--dtype", "int8"], "--dtype 'int8': must be one of auto, float32, float16, bfloat16"),
        (["--run-id", "a/b"], "--run-id 'a/b': must be text that matches"),
        (["--limits.fetch-timeout-s", "0"], "--limits.fetch-timeout-s '0': must be a number above 0"),
        (["--limits.input-schemes", "s3", "ftp"], "'ftp': must be one of file, s3, http, https"),
        (["--manifest", ""], "--manifest '': must not be empty"),
        (["--output", "https://host/x"], "scheme 'https' is not one of file, s3"),
        (["--config", "missing.yaml"], "--config missing.yaml: No such file or directory"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(
    argv: list[str], said: str, refusal: Callable[..., str]
) -> None:
    assert said in refusal(*REQUIRED, *argv)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batchsize: 3", "unknown key 'batchsize'; did you mean batch_size?"),
        ("batch-size: 3", "unknown key 'batch-size'; did you mean batch_size?"),
        (
            "limits: {fetch_timeout: 3}",
            "unknown key 'limits.fetch_timeout'; did you mean limits.fetch_timeout_s?",
        ),
        ("limits: 3", "limits = 3: must hold"),
        ("limits: {fetch_retries: 99}", "limits.fetch_retries = 99: must be a whole number from 0 to 20"),
        ("batch_size: many", "batch_size = 'many': must be a whole number from 1 to 64"),
        ("run_id: 5", "run_id = 5: must be text that matches"),
        ("seed: 1\nseed: 2", "the key 'seed' stands twice"),
        ("[1, 2]", "must hold 'field: value' lines"),
        ("seed: [", "is not valid YAML"),
        ("seed: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_wrong_yaml_is_named_with_file_and_key(
    text: str, said: str, config_file: Callable[[str], str], refusal: Callable[..., str]
) -> None:
    file = config_file(text)
    message = refusal("--config", file, *REQUIRED)
    assert said in message
    assert f"--config {file}: " in message


def test_yaml_that_is_no_text_is_refused(tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in refusal("--config", str(tmp_path / "run.yaml"), *REQUIRED)


def test_all_bad_values_are_told_at_once(refusal: Callable[..., str]) -> None:
    message = refusal(*REQUIRED, "--seed", "-1", "--dtype", "int8")
    assert "--seed" in message
    assert "--dtype" in message


def test_secrets_are_not_repeated(refusal: Callable[..., str]) -> None:
    message = refusal(*REQUIRED, "--output", "https://user:hunter2secret@host/x")
    assert "hunter2secret" not in message
    assert "host/x" in message


def test_help_reads_well_at_100_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as stopped:
        load("--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    assert "Says what it does." in text
    assert text.index("required:") < text.index("--manifest URI  ") < text.index("how it is computed:")
    assert "[default 1; 1 to 64]" in text
    assert "SECONDS" in text
    assert "{auto,float32,float16,bfloat16}" in text
    assert "--scores, --no-scores" in text
    for code in ExitCode:
        assert f"\n  {int(code)} " in text
    for name in RenderRun.model_fields:
        assert name == "limits" or f"--{name.replace('_', '-')}" in text
    for name in FetchLimits.model_fields:
        assert f"--limits.{name.replace('_', '-')}" in text


class OddConfig(BaseModel):
    """Fields that the render config has none of."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_sections: ClassVar[dict[str, str]] = {"share": "numbers with 50 % signs"}

    source: str | None = Field(None, alias="from", description="where it comes from, 100 % of it")
    share: float = Field(0.5, ge=0, lt=1, description="share (%)")
    kind: Literal["only"] = Field("only", description="there is one")


def test_an_alias_is_the_flag_and_percent_signs_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--from", "a", model=OddConfig).source == "a"
    with pytest.raises(SystemExit):
        load("--help", model=OddConfig)
    text = capsys.readouterr().out
    assert "--from TEXT" in text
    assert "100 % of it" in text
    assert "[default 0.5; at least 0 and below 1]" in text


def test_half_open_bounds_and_constants_are_told(refusal: Callable[..., str]) -> None:
    message = refusal("--share", "1", "--kind", "other", model=OddConfig)
    assert "--share '1': must be a number at least 0 and below 1" in message
    assert "--kind 'other': must be only" in message
