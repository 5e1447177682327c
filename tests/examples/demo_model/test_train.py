"""examples/demo_model/train: the chain's order, what it skips, and where it stops."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from actors.storage import Storage
from examples.demo_model import evaluate, finish, gates, start, train, train_judges
from examples.demo_model.stages import stages
from examples.encoders import train_autoencoder, train_clip
from jobs._cli import load_config
from schemas.train_run import TrainBaseRun, TrainDepthRun, TrainStyleRun, TrainTemporalRun


@pytest.fixture
def calls(monkeypatch):
    """Commands that were started; each makes what its stage promises, unless its module is in `failing`."""
    found = []
    failing = {}

    def fake(command, check):
        found.append(command[2:])
        code = next((code for name, code in failing.items() if name in " ".join(command)), 0)
        if code == 0:
            for stage in stages(Path(command_work(command))):
                if tuple(command[2:]) in stage.commands:
                    stage.made.parent.mkdir(parents=True, exist_ok=True)
                    stage.made.touch()
        return subprocess.CompletedProcess(command, code)

    def command_work(command):
        return sys.argv[sys.argv.index("--work") + 1]

    monkeypatch.setattr(subprocess, "run", fake)
    return found, failing


def run(monkeypatch, work, *arguments):
    monkeypatch.setattr(sys, "argv", ["train", "--work", str(work), *arguments])
    return train.main()


def modules(found):
    return [f"{call[0]} {call[1]}" if call[0].endswith("gates") else call[0] for call in found]


def test_everything_in_order_with_its_gates(tmp_path, monkeypatch, calls):
    assert run(monkeypatch, tmp_path) == 0
    found = modules(calls[0])
    order = ["train_judges", "train_autoencoder", "train_clip", "start", "train_base", "train_style"]
    order += ["train_temporal", "finish", "evaluate"]
    places = [next(i for i, name in enumerate(found) if name.endswith(f".{one}")) for one in order]
    assert places == sorted(places)
    for stage in ("judges", "autoencoder", "clip", "base", "style", "temporal"):
        assert f"examples.demo_model.gates {stage}" in found
    assert found[-1] == "examples.demo_model.finish"


def test_a_finished_chain_runs_nothing(tmp_path, monkeypatch, calls):
    assert run(monkeypatch, tmp_path) == 0
    calls[0].clear()
    assert run(monkeypatch, tmp_path) == 0
    assert calls[0] == []


def test_a_gate_stops_the_chain_and_says_why(tmp_path, monkeypatch, calls, capsys):
    calls[1]["gates base"] = 1
    assert run(monkeypatch, tmp_path) == 1
    assert modules(calls[0])[-1] == "examples.demo_model.gates base"
    assert "base_clips is not good enough for the next stage" in capsys.readouterr().err
    calls[1].clear()
    calls[0].clear()
    assert run(monkeypatch, tmp_path) == 0
    assert modules(calls[0])[0] == "examples.demo_model.gates base", "what had finished is not made again"


def test_a_job_that_was_stopped_stops_the_chain_with_its_code(tmp_path, monkeypatch, calls):
    calls[1]["train_style"] = 4
    assert run(monkeypatch, tmp_path) == 4
    assert calls[0][-1][0] == "jobs.train_style"


def test_one_stage_alone(tmp_path, monkeypatch, calls):
    assert run(monkeypatch, tmp_path, "--stage", "clip") == 0
    assert modules(calls[0]) == ["examples.encoders.train_clip", "examples.demo_model.gates clip"]


def test_a_dry_run_shows_commands_and_hours(tmp_path, monkeypatch, calls, capsys):
    assert run(monkeypatch, tmp_path, "--dry-run") == 0
    assert calls[0] == []
    told = capsys.readouterr().out
    assert "hours" in told
    for stage in stages(tmp_path):
        assert (f"\n{stage.name}: " in told) != stage.optional
    assert "$ python -m jobs.train_temporal --config" in told


JOBS = {
    "jobs.train_base": TrainBaseRun,
    "jobs.train_style": TrainStyleRun,
    "jobs.train_temporal": TrainTemporalRun,
    "jobs.train_depth": TrainDepthRun,
}


def commands(tmp_path):
    return [command for stage in stages(tmp_path) for command in (*stage.commands, stage.gate) if command]


def test_recipes_are_valid_configs_of_their_jobs(tmp_path):
    found = [one for one in commands(tmp_path) if one[0] in JOBS]
    assert {one[0] for one in found} == set(JOBS)
    for job, *arguments in found:
        run = load_config(JOBS[job], arguments, prog=job, description="")
        assert run.output == str(tmp_path / Path(run.output).name)


def test_base_trainings_read_what_they_are_meant_to(tmp_path):
    for stage in stages(tmp_path):
        if stage.made.name == "manifest.parquet":
            stage.made.parent.mkdir(parents=True)
            stage.made.touch()
    read = {}
    for job, *arguments in (one for one in commands(tmp_path) if one[0] == "jobs.train_base"):
        run = load_config(JOBS[job], arguments, prog=job, description="")
        read[Path(run.output).name] = {Path(uri).parent.name for uri in Storage().expand(run.data)}
    neutral = {"neutral_stills", "more_neutral_stills"}
    assert read == {
        "base_stills": neutral,
        "base_clips": neutral | {"neutral_clips", "styled_stills"},
        "base": {"neutral_stills", "neutral_clips", "titled_stills"},
    }


@pytest.mark.parametrize("module", [train_judges, train_autoencoder, start, gates, finish, evaluate])
def test_commands_have_the_flags_of_their_modules(module, tmp_path, monkeypatch):
    """Parsed, not run: reading the flags is the first thing each does, and then it is stopped."""

    class Parsed(Exception):  # noqa: N818 - it is no error
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self):
        parse(self)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    given = [one for one in commands(tmp_path) if one[0] == module.__name__]
    assert given
    for name, *arguments in given:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(Parsed):
            module.main()


def test_the_clips_differ_in_their_seeds_alone(tmp_path):
    own, other = (
        train_clip.parser().parse_args(list(command[1:]))
        for command in commands(tmp_path)
        if command[0] == "examples.encoders.train_clip"
    )
    assert own.seed != other.seed
    assert vars(own) | {"seed": 0, "output": 0, "work": 0} == vars(other) | {
        "seed": 0,
        "output": 0,
        "work": 0,
    }
