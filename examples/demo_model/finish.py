"""The trained model as it is shipped: half precision, in small files, with a card of what was measured.

python -m examples.demo_model.finish --model RUN/model --output examples/demo_model/weights/model
python -m examples.demo_model.finish --model RUN/model --output examples/demo_model/weights/model \\
    --evaluation outputs/demo_model/evaluation --run base=RUN --run style=RUN --run temporal=RUN

The first makes what the evaluation measures. The second makes the same again and adds the evaluation's table,
metrics.json and samples.png.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from examples.demo_model.card import model_card, training_facts, with_measured
from schemas.run import ExitCode
from stylecrafter import StyleCrafterPipeline
from stylecrafter.model_directory import MODEL_CARD, read_fingerprint

SAMPLES = "samples.png"
MAX_FILE_BYTES = 12 * 2**20
MAX_BYTES = 25 * 10**6
_SHARD_BYTES = 8 * 10**6


def main() -> int:
    options = _parser().parse_args()
    try:
        runs = [training_facts(*_named(one)) for one in options.run]
        metrics = finish(options.model, options.output, options.evaluation, runs)
        if options.page is not None and metrics is not None:
            samples = os.path.relpath(options.output / SAMPLES, options.page.parent)
            options.page.write_text(with_measured(options.page.read_text(), metrics, samples))
    except ValueError as error:
        print(error, file=sys.stderr)
        return ExitCode.USAGE
    except OSError as error:
        print(error, file=sys.stderr)
        return ExitCode.INFRASTRUCTURE
    return ExitCode.DONE


def finish(
    model: Path, output: Path, evaluation: Path | None, runs: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """Makes the directory beside its place and then puts it there, so that it is never half a model.

    Returns:
        What its metrics.json holds; None without an evaluation.

    Raises:
        ValueError: the model is untrained or too large, or the evaluation is of another one.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder) / "model"
        pipeline = _write_half(model, made)
        metrics = None
        if evaluation is not None:
            metrics = _metrics(evaluation, read_fingerprint(made)) | {"training": runs}
            (made / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
            shutil.copyfile(evaluation / "contact_sheet.png", made / SAMPLES)
        (made / MODEL_CARD).write_text(model_card(pipeline.generation_config, metrics, _parameters(pipeline)))
        for file in made.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        check_sizes(made)
        if output.exists():
            shutil.rmtree(output)
        made.rename(output)
    print(f"{output}: {_size(output) / 1e6:.1f} MB, fingerprint {read_fingerprint(output)[:12]}")
    return metrics


def check_sizes(folder: Path) -> None:
    """Refuses what the repository should not hold.

    Raises:
        ValueError: a file, or all of them, are too large.
    """
    for file in folder.rglob("*"):
        if file.is_file() and file.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(
                f"{file.name} has {file.stat().st_size} bytes; at most {MAX_FILE_BYTES} are allowed"
            )
    if _size(folder) > MAX_BYTES:
        raise ValueError(f"the model has {_size(folder)} bytes; at most {MAX_BYTES} are allowed")


def _write_half(model: Path, made: Path) -> StyleCrafterPipeline:
    pipeline = StyleCrafterPipeline.from_pretrained(model, dtype=torch.float16)
    if not pipeline.generation_config.get("trained"):
        raise ValueError(
            f"model is {str(model)!r}; it must be trained, its generation_config.json says it is not"
        )
    pipeline.save_pretrained(made, max_shard_size=_SHARD_BYTES)
    for file in made.glob("tokenizer/*.json"):  # indented, it would take a third more
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
    return pipeline


def _parameters(pipeline: StyleCrafterPipeline) -> int:
    modules = [one for one in pipeline.components.values() if isinstance(one, torch.nn.Module)]
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _metrics(evaluation: Path, fingerprint: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((evaluation / "metrics.json").read_text())
    measured = found["how"]["models"]["full"]
    if measured != fingerprint:
        raise ValueError(
            f"evaluation is {str(evaluation)!r}, of the model {measured[:12]}; it must be of {fingerprint[:12]}"
        )
    return found


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not folder:
        raise ValueError(f"run = {text!r}: must be NAME=DIR")
    return name, Path(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_model.finish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="model directory of the last stage")
    add("--output", type=Path, required=True, help="directory to write; an older one is replaced")
    add("--evaluation", type=Path, help="output of examples.demo_model.evaluate for this very model")
    add(
        "--run",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="output of a training job; may be repeated",
    )
    add("--page", type=Path, help="page of the documentation that shows the table too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
