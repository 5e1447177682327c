"""The paper's metrics of a model: renders a test manifest, or takes what is rendered, and prints the paper's table.

python -m jobs.evaluate --manifest test.parquet --model MODEL_DIR --output s3://bucket/test --clip CLIP_DIR
python -m jobs.evaluate --output s3://bucket/test --finished
python -m jobs.evaluate --compare s3://bucket/test s3://bucket/test-ablation

Per-row values go to run/evaluation/ of the output, and into its report. --compare reads those of two outputs.
"""

from rich.console import Console

from jobs._cli import load_config, run_job
from schemas.review_run import EvaluateRun
from schemas.run import ExitCode


def main() -> int:
    run = load_config(EvaluateRun, None, prog="python -m jobs.evaluate", description=__doc__)
    from actors.storage import Storage
    from pipeline.evaluate import evaluate
    from pipeline.evaluate_compare import compare
    from pipeline.evaluate_present import print_comparison, print_evaluation
    from pipeline.report import write_report  # after the flags: --help need not wait for torch

    console, storage = Console(), Storage()
    if run.compare:
        first, second = run.compare
        print_comparison(compare(storage, first, second, run.resamples), console)
        return ExitCode.DONE
    rendered = ExitCode.DONE if run.finished else _render(run, console)
    if rendered not in (ExitCode.DONE, ExitCode.DONE_WITH_FAILED_ROWS):
        return rendered
    evaluation = evaluate(run, storage)
    print_evaluation(evaluation, console)
    console.print(f"report  {write_report(storage, run.output)}", highlight=False, markup=False)
    return ExitCode.DONE_WITH_FAILED_ROWS if evaluation.errors else rendered


def _render(run: EvaluateRun, console: Console) -> int:
    from pipeline.prepare import prepare
    from pipeline.present import print_plan, print_summary
    from pipeline.render import render

    prepared = prepare(run.render_run())
    print_plan(prepared.description, console)
    summary = render(prepared)
    print_summary(summary, run.output, console)
    return summary.exit_code(run.max_failed_fraction)


if __name__ == "__main__":
    run_job(main)
