"""The golden model, converted once per session, and the numbers to compare with."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from stylecrafter import StyleCrafterPipeline
from stylecrafter.convert import ConversionReport, convert

GOLDEN = Path(__file__).parents[1] / "data" / "golden_tiny"


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
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
