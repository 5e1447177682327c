"""What is compared: one model asked in several ways, and other models asked the same. Rendered by the product.

Every variant renders the same conditions from the same noise, so that differences are paired.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from examples.demo_model.conditions import EVALUATION_SEED, Condition
from schemas.manifest import manifest_schema
from schemas.run import ExitCode, InfrastructureError

_BATCH = 8  # rows denoised together: pictures this small leave a core idle one by one


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Args:
        name: of its folder and in metrics.json.
        title: in the table.
        model: model directory.
        count: it is asked for conditions 0 up to this.
        style_scale: None: the model's own.
        shuffled: each video gets another one's reference, but is judged by its own.
    """

    name: str
    title: str
    model: Path
    count: int
    style_scale: float | None = None
    shuffled: bool = False

    def references(self) -> list[int]:
        """Which condition's reference each condition gets."""
        if not self.shuffled:
            return list(range(self.count))
        order = np.random.default_rng(EVALUATION_SEED).permutation(self.count)
        found = np.empty(self.count, int)
        found[order] = np.roll(order, 1)  # so that none gets its own
        return found.tolist()


def variants(
    model: Path, count: int, stage1: Path | None, ablations: dict[str, Path], ablation_count: int
) -> list[Variant]:
    """The whole table's rows, as far as there are models for them.

    Raises:
        ValueError: an ablation has the name of another row.
    """
    found = [
        Variant("full", "full model", model, count),
        Variant("no_adapter", "style scale 0 (no adapter)", model, count, style_scale=0.0),
        Variant("shuffled", "shuffled references", model, count, shuffled=True),
    ]
    if stage1 is not None:
        found.append(Variant("stage1", "stage 1 only (no temporal stage)", stage1, count))
    taken = {one.name for one in found}
    for name, folder in ablations.items():
        if name in taken or not name.isidentifier():
            raise ValueError(f"ablation {name!r}: must be a word that is none of {', '.join(sorted(taken))}")
        found.append(Variant(name, name.replace("_", " "), folder, ablation_count))
    return found


def write_references(conditions: Sequence[Condition], folder: Path) -> list[str]:
    """Every condition's reference as a PNG; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{one.index:04d}.png" for one in conditions]
    for one, path in zip(conditions, paths, strict=True):
        if not path.exists():
            Image.fromarray(one.reference_HWC).save(path)
    return [str(path.resolve()) for path in paths]


def write_manifest(
    variant: Variant, conditions: Sequence[Condition], references: Sequence[str], path: Path
) -> None:
    """The variant's rows.

    Raises:
        ValueError: the output was begun with other rows.
    """
    rows = [
        {
            "row_id": f"{one.index:04d}",
            "prompt": one.prompt,
            "style_image_uri": [references[of]],
            "seed": one.index,
            "style_scale": variant.style_scale,
        }
        for one, of in zip(conditions, variant.references(), strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=manifest_schema(list(rows[0])))
    if path.exists() and not pq.read_table(path).equals(table):
        raise ValueError(f"{path} holds other rows; give the same --videos as before, or another --output")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def render(variant: Variant, manifest: Path, output: Path, actors: int) -> None:
    """Runs `jobs.render` as a user would; it goes on from whatever is there.

    Raises:
        InfrastructureError: it did not render every row.
    """
    command = [
        *(sys.executable, "-m", "jobs.render"),
        *("--manifest", str(manifest)),
        *("--model", str(variant.model)),
        *("--output", str(output)),
        *("--batch-size", str(_BATCH)),
        *("--actors", str(actors)),
        "--no-scores",  # which are of the model's own CLIP
    ]
    code = subprocess.run(command, check=False).returncode
    if code != ExitCode.DONE:
        raise InfrastructureError(f"{variant.name}: {' '.join(command[1:])} ended with exit code {code}")
