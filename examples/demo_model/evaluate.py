"""Measures the demo model: held-out prompts and styles, against controls and ablations, rendered by jobs.render.

python -m examples.demo_model.evaluate --model MODEL_DIR --stage1 STAGE1_MODEL_DIR --output outputs/demo_model/evaluation
python -m examples.demo_model.evaluate ... --ablation no_augmentation=DIR --ablation fixed_fusion=DIR

The same command goes on after an interruption. Writes OUTPUT/metrics.json, table.md, scores.parquet and
contact_sheet.png (the first videos, unchosen); the videos themselves stay in OUTPUT/variants. Ends with one line
of JSON per figure.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from examples.contact_sheet import write_contact_sheet
from examples.demo_model import table
from examples.demo_model.conditions import EVALUATION_SEED, Condition, condition
from examples.demo_model.judges import WEIGHTS, Judges
from examples.demo_model.scoring import Scores, read_videos, scores, true_frames
from examples.demo_model.variants import Variant, render, variants, write_manifest, write_references
from examples.encoders.components import Clip, load_clip
from schemas.run import ExitCode, InfrastructureError
from stylecrafter.model_directory import load_generation_config, read_fingerprint

EVALUATION_CLIP = WEIGHTS.parent / "evaluation_clip"
TRUE, TRUE_TITLE = "true_clips", "true clips of the demo world, not rendered"
_SHOWN = 24


def main() -> int:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    try:
        rows = variants(
            options.model,
            options.videos,
            options.stage1,
            dict(_named(one) for one in options.ablation),
            options.ablation_videos or options.videos,
        )
        evaluate(rows, options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return ExitCode.USAGE
    except (InfrastructureError, OSError) as error:
        print(error, file=sys.stderr)
        return ExitCode.INFRASTRUCTURE
    return ExitCode.DONE


def evaluate(rows: Sequence[Variant], options: argparse.Namespace) -> None:
    """Renders, scores and writes everything."""
    judges, clip = Judges.load(options.judges), load_clip(options.evaluation_clip)
    conditions = [condition(EVALUATION_SEED, i) for i in range(max(row.count for row in rows))]
    references = write_references(conditions, options.output / "references")
    found: dict[str, Scores] = {}
    for row in rows:
        asked = conditions[: row.count]
        print(f"{row.title}: {row.count} videos of {row.model}", flush=True)
        found[row.name] = _measured(row, asked, references, judges, clip, options)
    found[TRUE] = scores(true_frames(conditions), conditions, judges, clip)
    _write(rows, found, options)


def _measured(
    row: Variant,
    conditions: Sequence[Condition],
    references: Sequence[str],
    judges: Judges,
    clip: Clip,
    options: argparse.Namespace,
) -> Scores:
    folder = options.output / "variants" / row.name
    write_manifest(row, conditions, references, folder / "manifest.parquet")
    render(row, folder / "manifest.parquet", folder / "render", options.actors)
    return scores(read_videos(folder / "render", row.count), conditions, judges, clip)


def _write(rows: Sequence[Variant], found: dict[str, Scores], options: argparse.Namespace) -> None:
    output: Path = options.output
    everything = {name: table.estimates(one) for name, one in found.items()}
    lost = table.content_loss(found["full"], found["no_adapter"])
    titles = {row.name: row.title for row in rows} | {TRUE: TRUE_TITLE}
    how = {
        "command": f"python -m examples.demo_model.evaluate {' '.join(sys.argv[1:])}",
        "seed": EVALUATION_SEED,
        "conditions": "prompts and reference styles of combinations held out from every training",
        "intervals": "95 %: Wilson's score for shares, bootstrap for means",
        "judges": json.loads((options.judges / "metrics.json").read_text())["figures"],
        "models": {row.name: read_fingerprint(row.model) for row in rows},
        "titles": titles,
        "settings": {
            key: value
            for key, value in load_generation_config(rows[0].model).items()
            if not isinstance(value, dict)
        },
    }
    metrics = table.metrics(everything, lost, how)
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    (output / "table.md").write_text(table.markdown(everything, titles))
    pq.write_table(_all_scores(found), output / "scores.parquet")
    write_contact_sheet(
        output / "variants" / "full" / "render", output / "contact_sheet.png", _SHOWN, columns=2
    )
    print((output / "table.md").read_text())
    for figure in table.figures(everything, lost):
        print(figure.as_json_line())


def _all_scores(found: dict[str, Scores]) -> pa.Table:
    tables = []
    for name, one in found.items():
        count = len(next(iter(one.values())))
        columns = {"variant": [name] * count, "index": list(range(count))}
        tables.append(pa.table(columns | {key: pa.array(values) for key, values in one.items()}))
    return pa.concat_tables(tables)


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not folder:
        raise ValueError(f"ablation = {text!r}: must be NAME=DIR")
    return name, Path(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_model.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="model directory to measure")
    add("--stage1", type=Path, help="model directory of stage 1, before the temporal stage")
    add("--ablation", action="append", default=[], metavar="NAME=DIR", help="another model; may be repeated")
    add("--output", type=Path, required=True, help="local folder")
    add("--videos", type=int, default=400, help="per variant (default: 400)")
    add("--ablation-videos", type=int, help="per ablation (default: as --videos)")
    add("--judges", type=Path, default=WEIGHTS, help=f"folder (default: {WEIGHTS})")
    add("--evaluation-clip", type=Path, default=EVALUATION_CLIP, help=f"default: {EVALUATION_CLIP}")
    add("--actors", type=int, default=0, help="of jobs.render (default: chosen by it)")
    add("--threads", type=int, default=1, help="for scoring (default: 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
