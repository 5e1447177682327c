"""Renders every manifest below a prefix, reconciles, evaluates and reports. The same command every night.

python -m jobs.nightly --manifest s3://bucket/manifests --model MODEL_DIR --output s3://bucket/nights
python -m jobs.nightly --config nightly.yaml --webhook https://hooks.example.org/renders
"""

from jobs._cli import load_config, run_job
from schemas.night import NightRun


def main() -> int:
    night = load_config(NightRun, None, prog="python -m jobs.nightly", description=__doc__)
    from pipeline.nightly import run_night  # after the flags: --help need not wait for torch

    report = run_night(night, lambda line: print(line, flush=True))
    print(report.model_dump_json())
    return report.exit_code


if __name__ == "__main__":
    run_job(main)
