"""Do the parity tests notice? Each mutation is one deliberate error in the model, and must fail a test.

python tests/mutation_check.py

It works on a temporary copy of the tree and prints one line per mutation; exit code 1 if one survives.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONDITIONING = "test_parity_conditioning.py"
UNET = "test_parity_unet.py"
SAMPLING = "test_parity_sampling.py"
VC2 = "test_parity_vc2.py"
DEPTH = "test_depth.py"


@dataclass(frozen=True)
class Mutation:
    """One error: in `file`, `old` (which must occur once) becomes `new`; `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation(
        "style logits without 1/sqrt(d)",
        "attention.py",
        "styled_BLC = _attend(query_BHLD, layer.key_BKC, layer.value_BKC)",
        "styled_BLC = _attend(query_BHLD * query_BHLD.shape[-1] ** 0.5, layer.key_BKC, layer.value_BKC)",
        UNET,
    ),
    Mutation(
        "fusion by scale instead of 1 + scale",
        "style_adapter.py",
        "(1 + fusion_scales_BL1.squeeze(-1))",
        "fusion_scales_BL1.squeeze(-1)",
        UNET,
    ),
    Mutation(
        "fusion scales without tanh",
        "style_adapter.py",
        "nn.Linear(scale_hidden_dim, 1), nn.Tanh()",
        "nn.Linear(scale_hidden_dim, 1)",
        CONDITIONING,
    ),
    Mutation(
        "no norm on the style attention",
        "attention.py",
        "return layer.gate_B[:, None, None] * normed_BLC",
        "return layer.gate_B[:, None, None] * styled_BLC",
        UNET,
    ),
    Mutation(
        "fusion scales in the order middle, down, up",
        "style_adapter.py",
        "zip(self.layers, gates_BL.unbind(1), strict=True)",
        "zip(self.layers, gates_BL.roll(1, dims=1).unbind(1), strict=True)",
        UNET,
    ),
    Mutation(
        "style layers in the order up, middle, down",
        "unet.py",
        "block.attn2.set_processor(DualCrossAttention(index))",
        "block.attn2.set_processor(DualCrossAttention(-1 - index))",
        UNET,
    ),
    Mutation(
        "references averaged instead of concatenated",
        "style_adapter.py",
        "return torch.cat(list(image_tokens), dim=1)",
        "return torch.cat(list(image_tokens), dim=0).mean(0, keepdim=True)",
        CONDITIONING,
    ),
    Mutation(
        "temporal positions mirrored",
        "attention.py",
        "position_T[None, :] - position_T[:, None]",
        "position_T[:, None] - position_T[None, :]",
        UNET,
    ),
    Mutation(
        "temporal positions off by one",
        "attention.py",
        "distance_TT.clamp(-self.max_distance, self.max_distance) + self.max_distance",
        "(distance_TT + 1).clamp(-self.max_distance, self.max_distance) + self.max_distance",
        UNET,
    ),
    Mutation(
        "temporal values without positions",
        "attention.py",
        'out_MHTD = weights_MHTT @ value + torch.einsum("mhts,tsd->mhtd", weights_MHTT, values_TTD)',
        "out_MHTD = weights_MHTT @ value",
        UNET,
    ),
    Mutation(
        "image mode with temporal layers",
        "unet.py",
        "temporal=not image_mode",
        "temporal=True",
        UNET,
    ),
    Mutation(
        "timesteps from 0 instead of 1",
        "sampling.py",
        "range(1, num_train_timesteps, stride)",
        "range(0, num_train_timesteps, stride)",
        SAMPLING,
    ),
    Mutation(
        "last step to alpha 1",
        "noise_schedule.py",
        '"set_alpha_to_one": False',
        '"set_alpha_to_one": True',
        SAMPLING,
    ),
    Mutation(
        "style guided against nothing",
        "guidance.py",
        "full + style_scale * (full - text) + text_scale",
        "full + style_scale * (full - uncond) + text_scale",
        SAMPLING,
    ),
    Mutation(
        "frames rounded instead of truncated",
        "decoding.py",
        "((frames_BCTHW.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)",
        "((frames_BCTHW.clamp(-1, 1) + 1) / 2 * 255).round().to(torch.uint8)",
        SAMPLING,
    ),
    Mutation(
        "last text layer instead of the penultimate",
        "text_encoder.py",
        "hidden[-1 - UNUSED_LAYERS]",
        "hidden[-1]",
        CONDITIONING,
    ),
    Mutation(
        "patch tokens with the final norm",
        "style_encoder.py",
        "output.last_hidden_state[:, 1:]",
        "encoder.vision_model.post_layernorm(output.last_hidden_state)[:, 1:]",
        CONDITIONING,
    ),
    Mutation(
        "references reduced without blur",
        "style_encoder.py",
        "return F.interpolate(blurred,",
        "return F.interpolate(pixels_R3HW,",
        CONDITIONING,
    ),
    Mutation(
        "bicubic without aligned corners",
        "style_encoder.py",
        "align_corners=True",
        "align_corners=False",
        CONDITIONING,
    ),
    Mutation(
        "temporal file ignored",
        "conversion_plan.py",
        'files.under("checkpoint", UNET) | files.under("temporal")',
        'files.under("checkpoint", UNET)',
        UNET,
    ),
    Mutation(
        "fps embedding ignored",
        "unet.py",
        "return embedding_BE + self.fps_embedding(",
        "return embedding_BE + 0 * self.fps_embedding(",
        VC2,
    ),
    Mutation(
        "no temporal convolutions",
        "unet.py",
        "if context.temporal and len(block.temp_convs):",
        "if False:",
        VC2,
    ),
    Mutation(
        "signal scale ignored by the sampler",
        "noise_schedule.py",
        "previous_sample = plain.prev_sample + correction",
        "previous_sample = plain.prev_sample",
        VC2,
    ),
    Mutation(
        "depth features one block early",
        "unet.py",
        "len(skips) % DEPTH_EVERY == DEPTH_EVERY - 1",
        "len(skips) % DEPTH_EVERY == DEPTH_EVERY - 2",
        DEPTH,
    ),
    Mutation(
        "depth features of the frames in another order",
        "depth.py",
        '"b t h w -> (b t) 1 h w"',
        '"b t h w -> (t b) 1 h w"',
        DEPTH,
    ),
    Mutation(
        "depth normalised per frame and clip the other way round",
        "depth.py",
        'if normalisation == "clip" else',
        'if normalisation == "frame" else',
        DEPTH,
    ),
)


def main() -> int:
    """Run all mutations; 1 if one of them goes unnoticed."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("stylecrafter", "tests/stylecrafter", "tests/support", "tests/data"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        survivors = [mutation.name for mutation in MUTATIONS if not _noticed(mutation, tree)]
    print(f"{len(MUTATIONS) - len(survivors)} of {len(MUTATIONS)} mutations noticed")
    return 1 if survivors else 0


def _noticed(mutation: Mutation, tree: Path) -> bool:
    file = tree / "stylecrafter" / mutation.file
    original = file.read_text()
    if original.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.name}: {mutation.old!r} does not occur exactly once in {mutation.file}")
    file.write_text(original.replace(mutation.old, mutation.new))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "--no-header",
        f"tests/stylecrafter/{mutation.tests}",
    ]
    result = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    file.write_text(original)
    failed = next((line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
    print(
        f"{'noticed ' if result.returncode == 1 else 'SURVIVED'}  {mutation.name:48} {failed[:150]}",
        flush=True,
    )
    return result.returncode == 1


if __name__ == "__main__":
    sys.exit(main())
