"""What the training jobs share: the same steps around another config."""

from rich.console import Console

from actors.uris import join
from jobs._cli import load_config
from schemas.run import ExitCode
from schemas.train_run import TrainRun


def run_training(config: type[TrainRun], job: str, description: str | None) -> int:
    """Parses, checks, trains and reports; the exit code."""
    run = load_config(config, None, prog=f"python -m {job}", description=description)
    from pipeline.train import prepare_training, train  # after the flags: --help need not wait for torch
    from pipeline.train_dry_run import describe_model
    from pipeline.train_export import model_uri
    from pipeline.train_log import METRICS_FILE, say

    console = Console()
    if run.dry_run:
        console.print(describe_model(run), highlight=False)
        return ExitCode.DONE

    prepared = prepare_training(run)
    for warning in prepared.data.warnings:
        say(console, f"warning: {warning}")
    for reason, count in prepared.data.skipped.items():
        say(console, f"warning: {count} rows are not used: {reason}")
    rows = ", ".join(f"{count} {kind}s" for kind, count in prepared.data.rows.items() if count)
    say(console, f"{run.stage} stage, {run.steps} steps on {rows} ({prepared.data.styles} styles)")
    if prepared.is_finished:
        say(console, "this run has finished before; nothing is trained")
    else:
        train(prepared, console)
    say(console, f"model      {model_uri(run)}")
    say(console, f"metrics    {join(run.output, METRICS_FILE)}")
    return ExitCode.DONE
