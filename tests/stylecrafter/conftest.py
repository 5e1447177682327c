"""The golden model, converted once per session, the numbers to compare with, and the full-size model's layout."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from stylecrafter import StyleCrafterPipeline
from stylecrafter.checkpoint_files import PublishedFiles
from stylecrafter.conversion_plan import Part, plan_parts
from stylecrafter.convert import ConversionReport, convert
from stylecrafter.published_params import PublishedParams, published_params

GOLDEN = Path(__file__).parents[1] / "data" / "golden_tiny"
LAYOUT = GOLDEN.parent / "layout_full.json.gz"
ROLES = {
    "checkpoint": "model.ckpt",
    "adapter": "adapter_v1.pth",
    "temporal": "temporal_v1_1.pth",
    "open_clip": "open_clip_pytorch_model.bin",
}


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(2)


@pytest.fixture(scope="session")
def published() -> dict[str, Path]:
    """The published files of the golden model by `convert`'s argument names."""
    return {
        "checkpoint": GOLDEN / "model.ckpt",
        "adapter": GOLDEN / "adapter_v1.pth",
        "temporal": GOLDEN / "temporal_v1_1.pth",
        "open_clip": GOLDEN / "open_clip_pytorch_model.bin",
    }


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "golden.safetensors")


@pytest.fixture(scope="session")
def report(published: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> ConversionReport:
    return convert(**published, output=tmp_path_factory.mktemp("golden") / "model")


@pytest.fixture(scope="session")
def model_path(report: ConversionReport) -> Path:
    return report.output


@pytest.fixture(scope="session")
def pipeline(model_path: Path) -> StyleCrafterPipeline:
    return StyleCrafterPipeline.from_pretrained(model_path)


@pytest.fixture(scope="session")
def references() -> list[Image.Image]:
    """Three style pictures in their original sizes, two of them not square."""
    return [Image.open(GOLDEN / f"style_{index}.png") for index in range(3)]


@pytest.fixture(scope="session")
def check() -> Callable[[torch.Tensor, torch.Tensor, float], None]:
    """check(actual, expected, limit): relative L2 error under the limit."""

    def compare(actual: torch.Tensor, expected: torch.Tensor, limit: float) -> None:
        assert actual.shape == expected.shape
        difference = (actual.double() - expected.double()).norm() / expected.double().norm()
        assert difference < limit, f"relative L2 error {difference:.2e} is not under {limit:.0e}"

    return compare


@pytest.fixture(scope="session")
def layout() -> dict:
    return json.loads(gzip.decompress(LAYOUT.read_bytes()))


@pytest.fixture(scope="session")
def files(layout: dict) -> PublishedFiles:
    """The full-size files as tensors without data."""
    tensors = {
        role: {key: torch.empty(shape, device="meta") for key, shape in layout["files"][name].items()}
        for role, name in ROLES.items()
    }
    return PublishedFiles({role: Path(name) for role, name in ROLES.items()}, tensors)


@pytest.fixture(scope="session")
def params(files: PublishedFiles) -> PublishedParams:
    return published_params(files, None, None)


@pytest.fixture(scope="session")
def parts(files: PublishedFiles, params: PublishedParams) -> dict[str, Part]:
    return {part.name: part for part in plan_parts(files, params)}
