"""Trains a CLIP from nothing, on clips of the demo world or on the pictures and captions of a training manifest.

python -m examples.encoders.train_clip --output outputs/encoders
python -m examples.encoders.train_clip --output outputs/encoders --data pictures/manifest.parquet --vocabulary 8192
python -m examples.encoders.train_clip --output outputs/encoders --text outputs/encoders/text_encoder --steps 4000

The last one trains another vision tower to a text tower that stays as it is, since a UNet may hang on it ("LiT:
Zero-Shot Transfer with Locked-image text Tuning", Zhai et al., 2022, the other way round).

Writes OUTPUT/{text_encoder,tokenizer,image_encoder,feature_extractor} (half precision), OUTPUT/clip.json with
what probes find in it, and, to go on from after an interruption, OUTPUT/training/clip.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
)

from actors.storage import StorageError
from examples.encoders.clip_data import ClipData, demo_data, manifest_data
from examples.encoders.clip_probes import probe
from examples.encoders.clip_trainer import ClipTrainer, step_loss
from examples.encoders.components import save_component
from examples.encoders.loop import Loop, train
from schemas.manifest import ManifestError
from schemas.run import ExitCode, InfrastructureError
from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.tokenizer import PUBLISHED_MERGES, OpenClipTokenizer, tokenizer_from_merges

_PATCH_PX = 8
_HEAD_CHANNELS = 32
_PROBED = 800


def main() -> int:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    try:
        data = _data(options)
        tokenizer = tokenizer_from_merges(PUBLISHED_MERGES, options.vocabulary, options.prompt_length)
        clip = build_clip(options)
        if options.text is not None:
            lock_text(clip, options.text)
        found = train_clip(clip, tokenizer, data, _loop(options), options)
        save_clip(clip, None if options.no_tokenizer else tokenizer, options.size, options.output)
    except (ValueError, ManifestError) as error:
        print(error, file=sys.stderr)
        return ExitCode.USAGE
    except (StorageError, InfrastructureError, OSError) as error:
        print(error, file=sys.stderr)
        return ExitCode.INFRASTRUCTURE
    if found:
        facts = {"command": f"python -m examples.encoders.train_clip {' '.join(sys.argv[1:])}", **found}
        (options.output / "clip.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(options.output)
    return ExitCode.DONE


def build_clip(options: argparse.Namespace) -> CLIPModel:
    """Both towers, small, random.

    Raises:
        ValueError: a size that patches do not cover.
    """
    if options.size % _PATCH_PX:
        raise ValueError(f"size is {options.size}; it must be a multiple of {_PATCH_PX}")
    torch.manual_seed(options.seed)
    text = {
        "vocab_size": options.vocabulary,
        "max_position_embeddings": options.prompt_length,
        "hidden_size": options.text_width,
        "intermediate_size": 2 * options.text_width,
        "num_hidden_layers": options.text_layers,
        "num_attention_heads": options.text_width // _HEAD_CHANNELS,
        "hidden_act": "gelu",
        "bos_token_id": options.vocabulary - 2,
        "eos_token_id": options.vocabulary - 1,
        "pad_token_id": 0,
        "projection_dim": options.projection,
    }
    vision = {
        "image_size": options.size,
        "patch_size": _PATCH_PX,
        "hidden_size": options.vision_width,
        "intermediate_size": 3 * options.vision_width,
        "num_hidden_layers": options.vision_layers,
        "num_attention_heads": options.vision_width // _HEAD_CHANNELS,
        "hidden_act": "gelu",
        "projection_dim": options.projection,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=options.projection))


def lock_text(clip: CLIPModel, folder: Path) -> None:
    """Takes a trained text tower, which will not change any more.

    Raises:
        ValueError: it has other sizes than this one.
    """
    trained = CLIPTextModelWithProjection.from_pretrained(folder, dtype=torch.float32).state_dict()
    own = _part(clip, "text_")
    if unlike := [name for name in own if name not in trained or trained[name].shape != own[name].shape]:
        raise ValueError(
            f"text is {str(folder)!r}; its {unlike[0]} must have the shape {list(own[unlike[0]].shape)}"
        )
    clip.load_state_dict(trained, strict=False)
    clip.text_model.requires_grad_(False)
    clip.text_projection.requires_grad_(False)


def train_clip(
    clip: CLIPModel, tokenizer: OpenClipTokenizer, data: ClipData, loop: Loop, options: argparse.Namespace
) -> dict[str, float]:
    """Trains in place; returns what probes find, for the demo world."""
    torch.manual_seed(loop.seed)
    trainer = ClipTrainer(clip, list(data.labels))

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        return step_loss(trainer, tokenizer, data, options.batch)

    def evaluate() -> dict[str, float]:
        return probe(clip, tokenizer, loop.seed, options.size, options.probed)

    return train(trainer, loss_of, loop, evaluate if data.labels else None)


def save_clip(clip: CLIPModel, tokenizer: OpenClipTokenizer | None, size: int, folder: Path) -> None:
    """The towers with their projections, and what feeds them, as components of a model directory.

    Without a tokenizer, `load_clip` makes it again.
    """
    text = CLIPTextModelWithProjection(clip.config.text_config)
    text.load_state_dict(_part(clip, "text_"))
    vision = CLIPVisionModelWithProjection(clip.config.vision_config)
    vision.load_state_dict(_part(clip, "vis"))
    save_component(text, folder / "text_encoder")
    save_component(vision, folder / "image_encoder")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder / "tokenizer")
    StyleImageProcessor(size=size, reference_size=size).save_pretrained(folder / "feature_extractor")


def _part(clip: CLIPModel, prefix: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in clip.state_dict().items() if name.startswith(prefix)}


def _data(options: argparse.Namespace) -> ClipData:
    if options.data is None:
        return demo_data(options.pool, options.seed, size=options.size)
    return manifest_data(options.data, options.pool, options.size, options.seed)


def _loop(options: argparse.Namespace) -> Loop:
    return Loop(
        work=options.output / "training" / "clip" if options.work is None else options.work,
        steps=options.steps,
        learning_rate=options.learning_rate,
        warmup_steps=100,
        weight_decay=0.05,
        seed=options.seed,
        evaluate_every=400,
    )


def parser() -> argparse.ArgumentParser:
    """Flags and defaults: the latter are the demo model's."""
    found = argparse.ArgumentParser(
        prog="python -m examples.encoders.train_clip",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--output", type=Path, required=True, help="folder to write the components into")
    add("--work", type=Path, help="folder of the state and metrics (default: OUTPUT/training/clip)")
    add("--text", type=Path, help="trained text tower to keep as it is (default: train one)")
    add("--data", help="training manifest (default: the demo world)")
    add("--pool", type=int, default=8000, help="samples kept in memory (default: 8000)")
    add("--probed", type=int, default=_PROBED, help=f"held-out pictures to probe with (default: {_PROBED})")
    add("--size", type=int, default=64, help="side of the pictures in pixels (default: 64)")
    add("--vision-width", type=int, default=128, help="a multiple of 32 (default: 128)")
    add("--vision-layers", type=int, default=4, help="default: 4")
    add("--text-width", type=int, default=128, help="a multiple of 32 (default: 128)")
    add("--text-layers", type=int, default=3, help="default: 3")
    add("--projection", type=int, default=96, help="width of the joint space (default: 96)")
    add("--vocabulary", type=int, default=593, help="embeddings of the text tower (default: 593)")
    add("--prompt-length", type=int, default=24, help="tokens of a prompt (default: 24)")
    add("--no-tokenizer", action="store_true", help="leave out the 3.6 MB that load_clip can make again")
    add("--steps", type=int, default=2000, help="default: 2000")
    add("--batch", type=int, default=32, help="default: 32")
    add("--learning-rate", type=float, default=1e-3, help="default: 0.001")
    add("--seed", type=int, default=0, help="default: 0")
    add("--threads", type=int, default=1, help="default: 1")
    return found


if __name__ == "__main__":
    sys.exit(main())
