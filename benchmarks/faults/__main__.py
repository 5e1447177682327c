"""Injects faults into the product and proves that it keeps its promise: nothing lost, nothing twice, nothing falsely ok.

python -m benchmarks.faults [--quick] [--kinds KIND ...] [--rounds N] [--seed N] [--results DIR]

About 30 minutes on two slow cores, about 5 with --quick. Needs a POSIX machine with /proc and no GPU or network.
Exit code 1 if any promise broke.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.faults.lab import (
    ROOT,
    Lab,
    run_environment,
    video_hashes,
    write_lab,
    write_manifest,
)
from benchmarks.faults.life import local_arguments
from benchmarks.faults.mutations import MUTATIONS
from benchmarks.faults.outputs import LocalOutput
from benchmarks.faults.result import Result
from benchmarks.faults.scenarios import SCENARIOS, Scenario
from benchmarks.faults.table import figures, table
from schemas.run import ExitCode

_EACH = 10
_REFERENCE_RUNS = 3  # on a very busy machine, Ray may not start
_POOL_ROWS, _QUICK_POOL_ROWS = 56, 20
KINDS = [kind for scenario in SCENARIOS for kind in scenario.kinds]


def main() -> int:
    given = _arguments()
    # As ^C does, it ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = given.results or Path(tempfile.mkdtemp(prefix="faults-"))
    # Short, since the names of Unix sockets may have 107 characters.
    ray_folder = Path(tempfile.mkdtemp(prefix="fr-"))
    results: list[Result] = []
    try:
        for seed in range(given.seed, given.seed + given.rounds):
            results += _round(folder / _round_name(seed, given), ray_folder, seed, given)
    finally:
        shutil.rmtree(ray_folder, ignore_errors=True)
    green = not any(result.problems or result.missed for result in results)
    print(table(results, given.kinds))
    runs, minutes = sum(result.runs for result in results), sum(result.wall_s for result in results) / 60
    print(f"seed {given.seed}, {given.rounds} rounds, {runs} runs, {minutes:.1f} minutes")
    if green and not given.results:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"outputs, logs, events and results are kept in {folder}")
    for figure in figures(results):
        print(figure.as_json_line())
    return 0 if green else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one fault of each kind, a few minutes")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=", ".join(KINDS)
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often everything is done (default: 1)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the faults' places; rounds count it up (default: 0)"
    )
    parser.add_argument(
        "--mutate", choices=sorted(MUTATIONS), help="break the product on purpose: then this must turn red"
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="keep everything in this folder, and go on with the round in it: what has its result there is not tried "
        "again (default: a temporary folder, which a round without broken promises removes)",
    )
    return parser.parse_args()


def _round_name(seed: int, given: argparse.Namespace) -> str:
    """Results of rounds with the same name may stand in one table."""
    return "-".join(filter(None, [f"seed-{seed}", "quick" if given.quick else "", given.mutate or ""]))


def _round(folder: Path, ray_folder: Path, seed: int, given: argparse.Namespace) -> list[Result]:
    """All scenarios that have one of the chosen kinds, with faults at the places that the seed gives."""
    pool_rows = _QUICK_POOL_ROWS if given.quick else _POOL_ROWS
    lab = Lab(folder, seed, given.mutate, run_environment(folder, ray_folder), {}, pool_rows)
    _prepare(lab)
    results = []
    for scenario in SCENARIOS:
        if kinds := [kind for kind in scenario.kinds if kind in given.kinds]:
            counts = dict.fromkeys(kinds, 1 if given.quick else _EACH)
            results.append(_result(lab, scenario, counts))
    return results


def _result(lab: Lab, scenario: Scenario, counts: dict[str, int]) -> Result:
    """What the scenario found, now or in the part of this round that was done before."""
    name = "-".join([scenario.name, *(counts if len(counts) < len(scenario.kinds) else ())])
    kept = lab.folder / "results" / f"{name}.json"
    result = Result.load(kept)
    if result is None:
        if not scenario.goes_on:
            for folder in (f"lives/{name}", f"out/{name}", f"s3-{name}"):
                shutil.rmtree(lab.folder / folder, ignore_errors=True)
        result = scenario.run(lab, name, counts)
        kept.parent.mkdir(exist_ok=True)
        result.save(kept)
    print(
        f"{result.scenario}: {len(result.injected)} faults in {result.runs} runs, {result.wall_s:.0f} s, "
        f"{len(result.problems)} broken promises",
        flush=True,
    )
    for problem in result.problems:
        print(f"{result.scenario}: {problem}", flush=True)
    for fault in result.missed:
        print(f"{result.scenario}: {fault.id} was not injected, its moment never came", flush=True)
    return result


def _prepare(lab: Lab) -> None:
    """Writes the lab, and renders its good rows without faults and without hooks."""
    kept = lab.folder / "reference.json"
    if not kept.exists():
        shutil.rmtree(lab.folder, ignore_errors=True)
        write_lab(lab.folder, lab.pool_rows)
        write_manifest(lab.base / "reference.parquet", lab.pool(lab.pool_rows))
        output = LocalOutput(lab.folder / "out" / "reference")
        _render_reference(lab, output)
        kept.write_text(
            json.dumps([[*identity, sha256] for identity, sha256 in video_hashes(output).items()])
        )
    lab.reference |= {(row_id, sample): sha256 for row_id, sample, sha256 in json.loads(kept.read_text())}


def _render_reference(lab: Lab, output: LocalOutput) -> None:
    command = [sys.executable, "-m", "jobs.render", *local_arguments(lab, "reference.parquet", output)]
    for _ in range(_REFERENCE_RUNS):
        done = subprocess.run(command, cwd=ROOT, env=lab.environment, capture_output=True, check=False)
        if done.returncode != ExitCode.INFRASTRUCTURE:
            break
    if done.returncode:
        raise SystemExit(f"the run without faults ended with {done.returncode}:\n{done.stderr.decode()}")


if __name__ == "__main__":
    sys.exit(main())
