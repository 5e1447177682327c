"""Trains the demo model from nothing, stage by stage, with the project's own commands (what `make train-demo` runs).

python -m examples.demo_model.train
python -m examples.demo_model.train --dry-run          (the commands and the hours, nothing else)
python -m examples.demo_model.train --stage base       (this one alone; the ones before it must be there)
python -m examples.demo_model.train --stage depth_data, then --stage depth       (a depth adapter: only when asked for)

The same command goes on after anything that stopped it: a finished stage is skipped, a begun one continues. A gate
after a stage stops the chain where its result is not good enough for the next one.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.demo_model.stages import Stage, stages
from schemas.run import ExitCode

_GATES = "gates"


def main() -> int:
    options = _parser().parse_args()
    chain = stages(options.work.resolve())
    if options.stage is not None:
        chain = [one for one in chain if one.name == options.stage]
    else:
        chain = [one for one in chain if not one.optional]
    print(f"about {sum(one.hours for one in chain):.1f} hours on two quiet cores, less what is already there")
    for stage in chain:
        code = _run(stage, options.work.resolve(), options.dry_run)
        if code != ExitCode.DONE:
            return code
    return ExitCode.DONE


def _run(stage: Stage, work: Path, dry_run: bool) -> int:
    """One stage and its gate; the exit code of what stopped it."""
    print(f"\n{stage.name}: {stage.does}, about {stage.hours:g} hours", flush=True)
    if stage.made.exists() and not dry_run:
        print(f"already there: {stage.made}")
    else:
        for command in stage.commands:
            code = _call(command, dry_run)
            if code != ExitCode.DONE:
                return code
    if not stage.gate:
        return ExitCode.DONE
    passed = work / _GATES / stage.name
    if passed.exists() and not dry_run:
        print("gate already passed")
        return ExitCode.DONE
    code = _call(stage.gate, dry_run)
    if code == ExitCode.DONE and not dry_run:
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()
    elif code == 1:
        print(
            f"{stage.name} is not good enough for the next stage. Train it longer or change its recipe, remove "
            f"{stage.made}, and start again; nothing after it was begun.",
            file=sys.stderr,
        )
    return code


def _call(command: Sequence[str], dry_run: bool) -> int:
    print(f"$ python -m {shlex.join(command)}", flush=True)
    return (
        ExitCode.DONE if dry_run else subprocess.run([sys.executable, "-m", *command], check=False).returncode
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_model.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--work", type=Path, default=Path("outputs/demo_model"), help="default: outputs/demo_model")
    add(
        "--stage",
        choices=[one.name for one in stages(Path())],
        help="default: all but those of depth, in this order",
    )
    add("--dry-run", action="store_true", help="show the commands and run nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
