"""The suite as it is run: green for the product, red for the product with one promise broken on purpose."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHOWN_BY = {  # the kinds of faults that show a mutation, and the figure that then is not zero
    "no-commit": ("kill_actor", "faults_lost"),
    "commit-first": ("kill_ray", "faults_falsely_ok"),
    "no-verification": ("partial_mp4", "faults_falsely_ok"),
    "no-adoption": ("kill_actor", "faults_duplicate"),
}


def run(tmp_path, *arguments):
    command = [sys.executable, "-m", "benchmarks.faults", "--quick", "--results", str(tmp_path), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return done, {figure["name"]: figure["value"] for figure in map(json.loads, lines)}


@pytest.mark.slow
def test_one_fault_of_each_kind_breaks_nothing(tmp_path):
    done, figures = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert figures.pop("faults_injected") >= 20
    assert figures == {"faults_lost": 0, "faults_duplicate": 0, "faults_falsely_ok": 0}


@pytest.mark.slow
@pytest.mark.parametrize("mutation", SHOWN_BY)
def test_a_broken_promise_turns_it_red(tmp_path, mutation):
    kind, figure = SHOWN_BY[mutation]
    done, figures = run(tmp_path, "--kinds", kind, "--mutate", mutation)
    assert done.returncode == 1, done.stdout + done.stderr
    assert figures[figure] > 0, done.stdout
