"""Make tests/data/golden_tiny from the golden numbers: python tests/data/make_golden_fixture.py [SOURCE]

Weights keep their published formats but are stored in float16 (their values are float16-exact); of the
golden tensors only those that tests compare with are kept. SOURCE defaults to ../shared/golden/tiny.
It also packs the key layout of the full-size model (../shared/reference/layout_full.json).
"""

import gzip
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared"
WEIGHTS = ("model.ckpt", "adapter_v1.pth", "temporal_v1_1.pth", "open_clip_pytorch_model.bin")
CONFIGS = ("config_video.json", "open_clip_config.json")
KEPT = (
    "text.",
    "style.",
    "unet.x",
    "unet.t",
    "unet.eps_",
    "unet2d.",
    "vae.",
    "ddim.",
    "schedule.alphas_cumprod",
)
KEPT_TRAJECTORY = ("x_T", "noise", "x", "sample", "frames", "frames_u8", "image_u8")
LEFT_OUT = ("style.image_u8", "unet.timestep_embedding")
PIXEL_STRIDE = 4


def main() -> None:
    """Write the fixture folder and the packed layout."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED / "golden" / "tiny"
    target = HERE / "golden_tiny"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in WEIGHTS:
        torch.save(_halved(torch.load(source / name, weights_only=True)), target / name)
    for name in CONFIGS:
        shutil.copyfile(source / name, target / name)
    for image in (source / "images").glob("*.png"):
        shutil.copyfile(image, target / image.name)
    save_file(_kept(load_file(source / "golden.safetensors")), target / "golden.safetensors")
    _pack_layout(SHARED / "reference" / "layout_full.json", HERE / "layout_full.json.gz")
    size_mib = sum(file.stat().st_size for file in target.iterdir()) / 2**20
    print(f"{target}: {size_mib:.1f} MiB")


def _halved(content: dict) -> dict:
    """Float tensors in float16, which must lose nothing."""
    halved = {}
    for key, value in content.items():
        if isinstance(value, dict):
            halved[key] = _halved(value)
        elif value.is_floating_point() and torch.equal(value.half().float(), value.float()):
            halved[key] = value.half()
        else:
            halved[key] = value
    return halved


def _kept(golden: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    kept = {key: value for key, value in golden.items() if key.startswith(KEPT) and key not in LEFT_OUT}
    kept |= {
        key: value for key, value in golden.items() if key.startswith(("traj_", "synth_")) and _wanted(key)
    }
    kept = {key: value for key, value in kept.items() if not key.startswith(LEFT_OUT)}
    # A regular sample of the pixels finds any error in preprocessing that all of them would.
    kept["style.preprocessed"] = kept["style.preprocessed"][..., ::PIXEL_STRIDE, ::PIXEL_STRIDE].contiguous()
    return kept


def _wanted(key: str) -> bool:
    return key.split(".", 1)[1] in KEPT_TRAJECTORY


def _pack_layout(source: Path, target: Path) -> None:
    """Shapes of all published keys and the parameter counts, without the rest."""
    layout = json.loads(source.read_text())
    files = {name: dict(_shapes(content["keys"])) for name, content in layout["video"].items()}
    packed = {"files": files, "parameter_counts": layout["parameter_counts"]}
    packed["style_layers"] = [layer["module"] for layer in layout["style_layers"].values()]
    with gzip.GzipFile(target, "wb", mtime=0) as file:
        file.write(json.dumps(packed, separators=(",", ":")).encode())


def _shapes(keys: dict, prefix: str = "") -> Iterator[tuple[str, list[int]]]:
    """(key, shape) of a layout, with the keys of nested dictionaries joined by dots."""
    for key, entry in keys.items():
        if "shape" in entry:
            yield prefix + key, entry["shape"]
        else:
            yield from _shapes(entry, f"{prefix}{key}.")


if __name__ == "__main__":
    main()
