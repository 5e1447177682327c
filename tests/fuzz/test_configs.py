"""Whatever stands in a config file or on a command line, it is a config, or one message and exit code 2."""

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from jobs import _cli
from jobs._cli import load_config
from jobs._flags import flags_of
from schemas.run import ExitCode, RenderRun
from schemas.train_run import TrainStyleRun

CONFIGS = {"render": RenderRun, "train": TrainStyleRun}
REQUIRED = ["--manifest", "m", "--model", "d", "--output", "o"]
FLAGS = [flag.option for flag in flags_of(RenderRun)]
KEYS = [".".join(flag.path) for flag in flags_of(RenderRun)]


@pytest.fixture(scope="module", autouse=True)
def flags_made_once() -> Iterator[None]:
    """Their JSON schemas take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_cli, "flags_of", functools.cache(flags_of))
        yield


def outcome(model: type[Any], argv: list[str]) -> str:
    """Empty if there is a config, else what the user is told."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            config = load_config(model, argv, prog="python -m jobs.x", description="x")
        except SystemExit as stopped:
            assert stopped.code == ExitCode.USAGE or (stopped.code == 0 and {"-h", "--help"} & set(argv))
            said = errors.getvalue()
            assert stopped.code == 0 or said.startswith("python -m jobs.x: error: ")
            assert len(said) < 20_000
            return said or "help"
    assert model.model_validate(config.model_dump(by_alias=True)) == config
    return ""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "run.yaml"


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.binary(max_size=8)
)
values = st.recursive(
    scalars | st.sampled_from(["video", "auto", "s3://b/x", "1_000", "0x1f", "1e3", "10**9"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
limits = st.dictionaries(st.sampled_from([key[7:] for key in KEYS if key.startswith("limits.")]), values)
fields = st.dictionaries(st.sampled_from([*KEYS, "colour"]), values, max_size=6)
contents = st.builds(
    lambda fields, limits: {**fields, "limits": limits} if limits else fields, fields, limits
)

# Pieces of YAML that mean something, so that noise becomes documents.
fragments = st.sampled_from(
    ["manifest: m\n", "model: d\n", "output: o\n", "limits:\n", "  fetch_retries: 1\n", "seed: ", "- ", "? ", ": ",
     "&a ", "*a", "<<: *a\n", "!!int ", "!!python/object:os.system ", "!!set ", "!!binary ", "[", "]", "{", "}", "|\n",
     ">\n", "'", '"', "\\ud83d", "\n", "  ", "\t", "%YAML 9.9\n", "---\n", "...\n", "0b_", "0x_", "._", "1:60", ".inf",
     "0o9", "190:20:30", "=", "~", "# c\n", "\ufeff", "\x85", "\u2028", "9" * 5000, "é"]
) | st.text(max_size=6)  # fmt: skip


@given(text=st.lists(fragments, max_size=12).map("".join))
@example(text="? [a, b]\n: c\n")
@example(text="seed: 0b_\n")
@example(text="seed: 0x_\n")
@example(text="seed: " + "9" * 5000)
@example(text="[" * 600)
@example(text="{" * 600)
@example(text="limits: &a {limits: *a}")
@example(text="model: &a [*a]\n")
@example(text='manifest: "\\ud83d"\n')
@example(text="a: &a [x,x,x,x,x,x,x,x,x]\nmodel: " + "[*a, " * 3 + "x" + "]" * 3)
@example(text="seed: !!timestamp 2026-99-99\n")
@example(text="seed: !!binary x\n")
@example(text="<<: [1]\n")
@example(text="!!set {a, a}\n")
@example(text="seed: 1:60:9_\n")
def test_text_in_a_config_file(file: Path, text: str) -> None:
    file.write_bytes(text.encode(errors="surrogatepass"))
    for model in CONFIGS.values():
        outcome(model, ["--config", str(file)])


@given(data=st.binary(max_size=60))
@example(data=b"\xff\xfem\0o\0")
@example(data=b"\0")
def test_bytes_in_a_config_file(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    outcome(RenderRun, ["--config", str(file), *REQUIRED])


def test_a_yaml_bomb_is_told_in_one_line(file: Path) -> None:
    """A list of lists of ... of the same list: a billion items when written out."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    file.write_text("\n".join([*lines, "seed: *a9", "limits: {input_roots: *a9}"]))
    assert "unknown key" in outcome(RenderRun, ["--config", str(file), *REQUIRED])
    file.write_text("\n".join([f"limits: {{input_roots: [{lines[0][4:]}]}}"]))
    assert "input_roots" in outcome(RenderRun, ["--config", str(file), *REQUIRED])
    nested = "&a0 [x, x, x, x, x, x, x, x, x, x]"
    for level in range(1, 10):
        nested = f"&a{level} [{nested}" + f", *a{level - 1}" * 9 + "]"
    file.write_text(f"seed: {nested}")
    assert "seed = [[[" in outcome(RenderRun, ["--config", str(file), *REQUIRED])


@given(content=contents)
@example(content={"limits": {"input_roots": [1, None]}})
@example(content={"run_id": "x" * 100_000})
@example(content={"seed": True, "scores": "maybe", "limits": {"fetch_timeout_s": float("nan")}})
@example(content={"price_per_gpu_hour": 1e999})
@example(content={None: 1})
def test_values_in_a_config_file(file: Path, content: dict[Any, Any]) -> None:
    try:
        file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    except yaml.YAMLError:
        return
    outcome(RenderRun, ["--config", str(file), *REQUIRED])


words = st.text(max_size=12) | st.sampled_from(
    ["--", "-", "1", "-1", "nan", "s3://b/x", "@f", "=", "--seed=", "\udcff"]
)
arguments = st.lists(
    st.sampled_from(FLAGS) | words | st.builds("{}={}".format, st.sampled_from(FLAGS), words), max_size=6
)


@given(argv=arguments)
@example(argv=["--seed"])
@example(argv=["--seed", "9" * 5000])
@example(argv=["--limits.input-roots"])
@example(argv=["--manifest", "\udcff"])
@example(argv=["--", "x"])
@example(argv=["--run-id", "%s"])
@example(argv=["--config", "/dev/null/x"])
@example(argv=["--config", "\0"])
def test_any_command_line(argv: list[str]) -> None:
    outcome(RenderRun, [*REQUIRED, *argv])
