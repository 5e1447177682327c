"""Renders a small manifest from nothing to videos, records and a contact sheet, with no download.

python -m examples.demo                (what `make demo` runs)

With the trained demo model of this repository if it is there, on prompts and styles that its training never had;
else with random weights, on photographs.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from skimage import data

from examples.contact_sheet import write_contact_sheet
from examples.demo_model.conditions import condition
from examples.untrained_model import build_untrained_pipeline
from schemas.manifest import manifest_schema
from schemas.run import ExitCode

TRAINED_MODEL = Path(__file__).parent / "demo_model" / "weights" / "model"

Rows = Sequence[tuple[str, str, Sequence[str]]]
"""row_id, prompt, names of the style pictures"""

_BAD_ROW = ("bad-row", "This row names a picture that does not exist", ["missing"])
_SEED = 5  # of what the trained model is asked for
_WORLD_ROWS = 6

# Pictures that ship inside scikit-image's wheel, all free to use: NASA/ESA (hubble, astronaut) and CC0.
PICTURES = ("hubble_deep_field", "coffee", "chelsea", "rocket", "retina", "immunohistochemistry")

ROWS: Rows = (
    ("galaxy", "A field of sunflowers on a sunny day", ["hubble_deep_field"]),
    ("coffee", "A wolf walking through the forest", ["coffee"]),
    ("cat", "A lighthouse on a rocky coast", ["chelsea"]),
    ("rocket", "A knight riding a horse", ["rocket"]),
    ("two-styles", "A campfire surrounded by tents", ["retina", "immunohistochemistry"]),
    ("three-styles", "A river under a bridge", ["coffee", "rocket", "hubble_deep_field"]),
    _BAD_ROW,
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="default: outputs/demo")
    folder = parser.parse_args().output.resolve()
    model, rows = _trained(folder) if (TRAINED_MODEL / "fingerprint").is_file() else _untrained(folder)
    write_manifest(folder / "manifest.parquet", str(folder / "styles"), rows)
    code = render(str(model), str(folder / "manifest.parquet"), str(folder / "render"))
    if code != ExitCode.DONE_WITH_FAILED_ROWS:
        print(f"expected exit code 1 (one row is bad on purpose), got {code}", file=sys.stderr)
        return code or ExitCode.INTERNAL
    sheet = folder / "contact_sheet.png"
    write_contact_sheet(folder / "render", sheet)
    if model == TRAINED_MODEL:
        print(f"model          {model}, trained from nothing by this project; its README.md has the figures")
    else:
        print(
            f"model          {model}, UNTRAINED: it shows that the machinery works, not what a model can do"
        )
    print(f"videos         {folder / 'render' / 'videos'}")
    print(f"records        {folder / 'render' / 'records'}")
    print(f"contact sheet  {sheet}")
    print(
        "The row 'bad-row' failed on purpose: its record says why. Run it again: nothing is rendered twice."
    )
    return ExitCode.DONE


def _trained(folder: Path) -> tuple[Path, Rows]:
    """The shipped model and what it is asked for: the references are drawn as PNG files."""
    rows: list[tuple[str, str, Sequence[str]]] = []
    (folder / "styles").mkdir(parents=True, exist_ok=True)
    for index in range(_WORLD_ROWS):
        asked = condition(_SEED, index)
        Image.fromarray(asked.reference_HWC).save(folder / "styles" / f"world-{index}.png")
        rows.append((f"world-{index}", asked.prompt, [f"world-{index}"]))
    return TRAINED_MODEL, [*rows, _BAD_ROW]


def _untrained(folder: Path) -> tuple[Path, Rows]:
    model = folder / "model"
    if not model.is_dir():
        build_untrained_pipeline(seed=0).save_pretrained(model)
    write_styles(folder / "styles")
    return model, ROWS


def write_styles(folder: Path) -> None:
    """The photographs as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")


def write_manifest(path: Path, styles: str, rows: Rows = ROWS) -> None:
    """The demo's rows as a Parquet manifest; `styles` is the folder or URI prefix of the pictures."""
    table = [
        {"row_id": row_id, "prompt": prompt, "style_image_uri": [f"{styles}/{name}.png" for name in names]}
        for row_id, prompt, names in rows
    ]
    pq.write_table(pa.Table.from_pylist(table, schema=manifest_schema(list(table[0]))), path)


def render(model: str, manifest: str, output: str, environment: Mapping[str, str] = os.environ) -> int:
    """Runs `jobs.render` as a user would; its exit code."""
    command = [
        sys.executable,
        "-m",
        "jobs.render",
        "--manifest",
        manifest,
        "--model",
        model,
        "--output",
        output,
    ]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
