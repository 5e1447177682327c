"""Make tests/data/golden_* from the golden numbers: python tests/data/make_golden_fixture.py [SOURCE]

Weights keep their published formats but are stored in float16 (their values are float16-exact); of the
golden tensors only those that tests compare with are kept. SOURCE defaults to ../shared/golden.
It also packs the key layouts of the full-size models (../shared/reference/layout_full*.json).
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
WEIGHTS = (
    "model.ckpt",
    "adapter_v1.pth",
    "temporal_v1_1.pth",
    "open_clip_pytorch_model.bin",
    "depth_adapter.pth",
)
CONFIGS = ("config_video.json", "open_clip_config.json", "config_style_video.json")
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
# Of each folder, what is kept besides.
FOLDERS = {
    "tiny": (),
    "tiny_vc2": (
        "schedule.scale_arr",
        "unet.context",
        "unet.act.input_blocks.1.0.temporal_conv",
        "fps_embedding.",
        "q_sample.",
        "image.",
    ),
    "tiny_depth": ("unet.context", "image.", "features.", "depth.", "adapter.", "with_tiny_weights."),
}
TRAJECTORIES = ("traj.", "traj_", "synth_", "style_traj", "image_traj")
KEPT_TRAJECTORY = ("x_T", "noise", "x", "sample", "frames", "frames_u8", "image_u8")
LEFT_OUT = ("style.image_u8", "unet.timestep_embedding")
PIXEL_STRIDE = 4


def main() -> None:
    """Write the fixture folders and the packed layouts."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED / "golden"
    for name, kept in FOLDERS.items():
        _write_folder(source / name, HERE / f"golden_{name}", KEPT + kept)
    _pack_layout(SHARED / "reference" / "layout_full.json", HERE / "layout_full.json.gz")
    _pack_layout_vc2(SHARED / "reference" / "layout_full_vc2.json", HERE / "layout_full_vc2.json.gz")


def _write_folder(source: Path, target: Path, prefixes: tuple[str, ...]) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in filter(lambda name: (source / name).exists(), WEIGHTS):
        torch.save(_halved(torch.load(source / name, weights_only=True)), target / name)
    for name in filter(lambda name: (source / name).exists(), CONFIGS):
        shutil.copyfile(source / name, target / name)
    for image in (source / "images").glob("*.png"):
        shutil.copyfile(image, target / image.name)
    save_file(_kept(load_file(source / "golden.safetensors"), prefixes), target / "golden.safetensors")
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


def _kept(golden: dict[str, torch.Tensor], prefixes: tuple[str, ...]) -> dict[str, torch.Tensor]:
    kept = {key: value for key, value in golden.items() if key.startswith(prefixes) and key not in LEFT_OUT}
    kept |= {key: value for key, value in golden.items() if key.startswith(TRAJECTORIES) and _wanted(key)}
    kept = {key: value for key, value in kept.items() if not key.startswith(LEFT_OUT)}
    # A regular sample of the pixels finds any error in preprocessing that all of them would.
    if "style.preprocessed" in kept:
        pixels = kept["style.preprocessed"][..., ::PIXEL_STRIDE, ::PIXEL_STRIDE]
        kept["style.preprocessed"] = pixels.contiguous()
    return kept


def _wanted(key: str) -> bool:
    return key.split(".", 1)[1] in KEPT_TRAJECTORY


def _pack_layout(source: Path, target: Path) -> None:
    """Shapes of all published keys and the parameter counts, without the rest."""
    layout = json.loads(source.read_text())
    files = {name: dict(_shapes(content["keys"])) for name, content in layout["video"].items()}
    packed = {"files": files, "parameter_counts": layout["parameter_counts"]}
    packed["style_layers"] = [layer["module"] for layer in layout["style_layers"].values()]
    _pack(packed, target)


def _pack_layout_vc2(source: Path, target: Path) -> None:
    """What VideoCrafter2's UNet adds to VideoCrafter1's and takes away, and its parameter counts."""
    layout = json.loads(source.read_text())
    added = dict(_shapes(layout["added_vs_vc1"]))
    removed = sorted(layout["removed_vs_vc1"])
    _pack({"added": added, "removed": removed, "parameter_counts": layout["parameter_counts"]}, target)


def _pack(content: dict, target: Path) -> None:
    with gzip.GzipFile(target, "wb", mtime=0) as file:
        file.write(json.dumps(content, separators=(",", ":")).encode())


def _shapes(keys: dict, prefix: str = "") -> Iterator[tuple[str, list[int]]]:
    """(key, shape) of a layout, with the keys of nested dictionaries joined by dots."""
    for key, entry in keys.items():
        if "shape" in entry:
            yield prefix + key, entry["shape"]
        else:
            yield from _shapes(entry, f"{prefix}{key}.")


if __name__ == "__main__":
    main()
