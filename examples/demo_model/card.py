"""The model card: what the demo model is, how it was trained, what was measured, what it cannot do."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from examples.demo_model.table import Estimate, markdown
from examples.demo_world.palettes import PALETTES
from examples.demo_world.shapes import SHAPES
from examples.demo_world.world import FAMILIES, MOTIONS, SCENES

# How many values of each label there are to ask for; judges know more.
_ASKED = {
    "shape": len(SHAPES),
    "scene": len(SCENES),
    "motion": len(MOTIONS),
    "family": len(FAMILIES),
    "palette": len(PALETTES),
}
_LAST_LINES = 10  # of metrics, whose mean is called the loss at the end

_HEAD = """---
license: apache-2.0
library_name: stylecrafter
pipeline_tag: text-to-video
---
# A small StyleCrafter, trained from nothing

Text and a style picture to a video of 8 frames, 64 x 64 pixels, of one small world: {shapes}, over {scenes},
moving {motions}, drawn in the style of the reference. The architecture is the published one (StyleCrafter,
arXiv 2312.00330, on VideoCrafter1) with {parameters}; autoencoder, CLIP, UNet and adapter were all
trained by this repository's own commands on two CPU cores, from no other weights and no pictures but procedural
ones. It is there so that everything can be tried offline, and as evidence that both training stages work. It is
no model for anything else.

```python
from PIL import Image
from stylecrafter import StyleCrafterPipeline

pipeline = StyleCrafterPipeline.from_pretrained("examples/demo_model/weights/model")
frames = pipeline("a star moving left over the sea", [Image.open("reference.png")], seed=1).frames
```
"""

_DATA = """
## Data

The procedural world of `examples/demo_world`, drawn from seeds: neutral clips and stills in free colours, and
stills in thousands of styles (8 families x 12 palette classes, with strokes, backgrounds and shades of their own).
10 of its 60 combinations of shape, scene and motion and 16 of its 96 combinations of family and palette class are
held out from every training, the encoders' and the judges' included.
"""

_MEASURED = """
## What was measured

{n} prompts of held-out combinations with references in held-out styles, the same noise for every row. Shape, scene
and motion against the prompt, style family and palette class against the reference, by classifiers trained on true
clips alone ({judges}); CLIP-Style and CLIP-Text by a CLIP trained independently of the
model's. Shares with 95 % Wilson intervals, means with bootstrap intervals. Chance is {chance}.

{table}
Content loss through style (accuracy without style minus accuracy with it, mean of shape, scene and motion):
**{loss}**; {losses}.

The command: `{command}`. The model's `metrics.json` has all figures.
"""

_SAMPLES = """
## Samples

The first of these videos, unchosen: reference, then four frames.

![reference and frames]({path})
"""
_MARKS = "<!-- measured: written by examples.demo_model.finish -->\n", "<!-- /measured -->\n"

_LIMITS = """
## Limits

- It knows the words of its captions and nothing else: other prompts give one of its pictures, or none.
- References from outside its world (photographs, paintings) are far from what its CLIP has seen.
- 64 x 64 pixels, 8 frames; objects leave from the middle towards the named side, and nothing else moves.
- Shapes, scenes and styles are told apart by classifiers of the same world, which may share the model's blind spots.
- No depth guidance.

Licence: Apache-2.0, as the repository.
"""


def model_card(config: Mapping[str, Any], metrics: Mapping[str, Any] | None, parameters: int) -> str:
    """Markdown; without metrics it says that nothing was measured yet."""
    head = _HEAD.format(
        shapes=", ".join(f"a {shape}" for shape in SHAPES),
        scenes=", ".join(SCENES),
        motions=", ".join(MOTIONS),
        parameters=f"{parameters / 1e6:.1f} million parameters",
    )
    settings = ", ".join(f"{key} {value}" for key, value in config.items() if not isinstance(value, dict))
    parts = [head, f"\nSettings: {settings}.\n", _DATA]
    if metrics is None:
        return "".join([*parts, "\nNot measured yet.\n", _LIMITS])
    return "".join([*parts, measured(metrics, "samples.png"), _LIMITS])


def measured(metrics: Mapping[str, Any], samples: str) -> str:
    """How the model was trained, the table, and the samples' picture at that path."""
    return _training(metrics["training"]) + _measured(metrics) + _SAMPLES.format(path=samples)


def with_measured(page: str, metrics: Mapping[str, Any], samples: str) -> str:
    """A page of the documentation with that part in it, between its marks.

    Raises:
        ValueError: the page has no such place.
    """
    before, first, rest = page.partition(_MARKS[0])
    _, last, after = rest.partition(_MARKS[1])
    if not first or not last:
        raise ValueError(f"the page lacks the line {_MARKS[0 if not first else 1].strip()!r}")
    return before + first + measured(metrics, samples) + "\n" + last + after


def training_facts(name: str, run: Path) -> dict[str, Any]:
    """What a training job's output tells of it.

    Raises:
        ValueError: the folder is no such output, or has no metrics.
    """
    for file in (run / "run" / "train.json", run / "metrics.jsonl"):
        if not file.is_file():
            raise ValueError(f"run is {name}={run}; it must hold {file.relative_to(run)}")
    config = json.loads((run / "run" / "train.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "step_s" in line]
    if not logged:
        raise ValueError(f"run is {name}={run}; its metrics.jsonl has no step")
    found = {
        "name": name,
        "stage": config["stage"],
        "steps": logged[-1]["step"],
        "batch": _batch(config),
        "learning_rate": config["learning_rate"],
        "hours": round(_seconds(logged) / 3600, 2),
        "loss": round(fmean(line["loss"] for line in logged[-_LAST_LINES:]), 4),
    }
    for kind in ("image", "video"):
        losses = [line[f"val_loss_{kind}"] for line in lines if f"val_loss_{kind}" in line]
        if losses:
            found[f"val_loss_{kind}"] = round(losses[-1], 4)
    return found


def _seconds(logged: Sequence[Mapping[str, Any]]) -> float:
    """Time in steps alone: interruptions do not count."""
    steps = [line["step"] for line in logged]
    return sum(
        line["step_s"] * (step - before)
        for line, step, before in zip(logged, steps, [0, *steps[:-1]], strict=True)
    )


def _batch(config: Mapping[str, Any]) -> str:
    images, videos, share = config["image_batch"], config["video_batch"], config["image_share"]
    kinds = [f"{images} pictures"] * (share > 0) + [f"{videos} clips"] * (share < 1)
    times = config["micro_batches_per_step"]
    return f"{times} x " * (times > 1) + " or ".join(kinds)


def _training(runs: Sequence[Mapping[str, Any]]) -> str:
    columns = {
        "name": "run",
        "steps": "steps",
        "batch": "batch",
        "learning_rate": "learning rate",
        "hours": "hours",
        "loss": "loss at the end",
        "val_loss_image": "validation, pictures",
        "val_loss_video": "validation, clips",
    }
    lines = ["| " + " | ".join(columns.values()) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(run.get(key, "-")) for key in columns) + " |" for run in runs]
    return (
        "\n## Training\n\nOn two shared CPU cores, single precision; averaged weights.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _measured(metrics: Mapping[str, Any]) -> str:
    everything = {
        variant: {name: Estimate(**value) for name, value in found.items()}
        for variant, found in metrics["variants"].items()
    }
    lost = {name: Estimate(**value) for name, value in metrics["content_loss"].items()}
    judges = metrics["how"]["judges"]
    return _MEASURED.format(
        n=everything["full"]["shape"].n,
        judges=", ".join(f"{name} {found['accuracy']:.3f}" for name, found in judges.items())
        + " on held-out true clips",
        chance=", ".join(f"{1 / count:.2f} for {name}" for name, count in _ASKED.items()),
        table=markdown(everything, metrics["how"]["titles"]),
        loss=lost["all"],
        losses=", ".join(f"{name} {value}" for name, value in lost.items() if name != "all"),
        command=metrics["how"]["command"],
    )
