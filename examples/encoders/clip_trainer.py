"""The contrastive objective of a small CLIP, with helpers that are dropped after the training.

Contrast: samples with captions, both ways, where several captions may be true of one sample. Three helpers
make a tower of this size learn what a style model needs:
- the text's contrast is also taken from its penultimate layer, which is what the UNet attends to, and linear
  heads name there what the caption names: else words that the vision tower learns late would fall together;
- a clip is the mean of its frames and a function of what changes between them, so that motion words come apart;
- linear heads on the vision tower name what labels there are. Contrast alone leaves style half unseen. Family,
  shape and scene are learned with colour channels swapped too, so that they are not told by colours, and style
  from details at the enlargement that training references have.

Shapes: N samples or captions, T frames, S text tokens, P vision tokens, E channels, K values of a label.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPModel

from examples.encoders.clip_data import UNKNOWN, VALUES, Caption, ClipData
from examples.encoders.vision_start import start_vision
from stylecrafter.augment import REFERENCE_ENLARGEMENT
from stylecrafter.style_encoder import CLIP_MEAN, CLIP_STD
from stylecrafter.text_encoder import UNUSED_LAYERS
from stylecrafter.tokenizer import OpenClipTokenizer

_COLOURED = ("palette",)  # the labels that are about colours
_ORDERLESS = ("family", "palette")  # those that a detail shows as well as the whole picture
_HEAD_WEIGHT = 0.5
_SHIFT_PX = 4


class ClipTrainer(nn.Module):
    """CLIP and its helpers.

    Args:
        clip: fresh.
        labels: names of the labels that the data has.
    """

    def __init__(self, clip: CLIPModel, labels: Sequence[str]):
        super().__init__()
        self.clip = clip
        vision, joint = clip.config.vision_config.hidden_size, clip.config.projection_dim
        self.change = nn.Linear(vision, joint, bias=False)
        self.early_text = nn.Linear(clip.config.text_config.hidden_size, joint, bias=False)
        text = clip.config.text_config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(2 * vision, len(VALUES[name])) for name in labels})
        self.text_heads = nn.ModuleDict({name: nn.Linear(text, len(VALUES[name])) for name in labels})
        start_vision(clip)

    def embed_pixels(self, pixels_NTCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Joint embeddings [N, E] of clips of one or two frames, and features [N T, 2 E] for the heads."""
        count, frames = pixels_NTCHW.shape[:2]
        output = self.clip.vision_model(pixels_NTCHW.flatten(0, 1))
        embedded_NTE = self.clip.visual_projection(output.pooler_output).unflatten(0, (count, frames))
        pooled_NTE = output.pooler_output.unflatten(0, (count, frames))
        joint = embedded_NTE.mean(1)
        if frames > 1:
            joint = joint + self.change(pooled_NTE[:, -1] - pooled_NTE[:, 0])
        features = torch.cat([output.pooler_output, output.last_hidden_state[:, 1:].mean(1)], dim=-1)
        return joint, features

    def embed_text(self, ids_NS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Joint embeddings [N, E] of captions from the last layer, and features [N, E] of the penultimate."""
        text_model = self.clip.text_model
        output = text_model(ids_NS, output_hidden_states=True)
        early_NSE = text_model.final_layer_norm(output.hidden_states[-1 - UNUSED_LAYERS])
        return self.clip.text_projection(output.pooler_output), early_NSE.mean(1)

    def contrast(
        self, joint_NE: torch.Tensor, texts_NE: Sequence[torch.Tensor], fits_NN: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy both ways; the target of a row is shared among all that fit it."""
        scale = self.clip.logit_scale.clamp(max=4.6).exp()
        loss = torch.zeros(())
        for text_NE in texts_NE:
            logits_NN = scale * F.normalize(joint_NE, dim=-1) @ F.normalize(text_NE, dim=-1).T
            target_NN = fits_NN.float()
            loss = loss + F.cross_entropy(logits_NN, target_NN / target_NN.sum(1, keepdim=True)) / 4
            loss = loss + F.cross_entropy(logits_NN.T, target_NN.T / target_NN.T.sum(1, keepdim=True)) / 4
        return loss

    def head_loss(self, features_NE: torch.Tensor, labels: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sum of the vision heads' cross-entropies; UNKNOWN labels do not count."""
        return _named_loss(self.heads, features_NE, labels)

    def text_loss(self, features_NE: torch.Tensor, captions: Sequence[Caption]) -> torch.Tensor:
        """The same of the text heads, for what each caption names."""
        labels = {
            name: torch.tensor([one.named.get(name, UNKNOWN) for one in captions]) for name in self.text_heads
        }
        return _named_loss(self.text_heads, features_NE, labels)


def _named_loss(
    heads: nn.ModuleDict, features_NE: torch.Tensor, labels: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    loss = torch.zeros(())
    for name, numbers_N in labels.items():
        if bool((numbers_N != UNKNOWN).any()):
            loss = loss + F.cross_entropy(heads[name](features_NE), numbers_N, ignore_index=UNKNOWN)
    return loss


def step_loss(
    trainer: ClipTrainer, tokenizer: OpenClipTokenizer, data: ClipData, batch: int
) -> tuple[torch.Tensor, dict[str, float]]:
    """One step's loss on a batch drawn from torch's global generator."""
    rng = np.random.default_rng(int(torch.randint(2**62, ())))
    chosen = rng.integers(len(data), size=batch)
    captions = [data.captions[i][rng.integers(len(data.captions[i]))] for i in chosen]
    fits_NN = torch.from_numpy(data.fitting(chosen, captions))
    frames_NTHWC = data.frames_NTHWC[chosen]
    seen_NTHWC = _early_and_late(frames_NTHWC, rng)
    joint_NE, features_NE = trainer.embed_pixels(to_clip_input(seen_NTHWC))
    text_NE, early_NE = trainer.embed_text(tokenizer.prompt_ids([one.text for one in captions]))
    contrast = trainer.contrast(joint_NE, (text_NE, trainer.early_text(early_NE)), fits_NN)
    if not trainer.heads:
        return contrast, {}
    labels = {name: torch.from_numpy(data.labels[name][chosen]) for name in trainer.heads}
    whole = trainer.head_loss(features_NE, _of_frames(labels, seen_NTHWC.shape[1]))
    detail = _detail_loss(trainer, frames_NTHWC, labels, rng)
    words = trainer.text_loss(early_NE, captions)
    loss = contrast + _HEAD_WEIGHT * (whole + detail + words)
    parts = {"contrast": contrast, "heads": whole, "details": detail, "words": words}
    return loss, {name: float(part.detach()) for name, part in parts.items()}


def to_clip_input(frames_NTHWC: np.ndarray) -> torch.Tensor:
    """uint8 frames as large as the tower's input -> float [N, T, C, H, W], as StyleImageProcessor normalises."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames_NTHWC)).permute(0, 1, 4, 2, 3).float() / 255
    return (pixels - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]


def _early_and_late(frames_NTHWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two frames of clips, from the first and the last third; the only one of pictures. Shifted a little, alike.

    A tower of patches learns places one by one: what it sees only in the middle and at the ends of ways, it does
    not know between them.
    """
    frames = frames_NTHWC.shape[1]
    chosen = [rng.integers(max(frames // 3, 1)), frames - 1 - rng.integers(max(frames // 3, 1))][:frames]
    padding = ((0, 0), (0, 0), (_SHIFT_PX, _SHIFT_PX), (_SHIFT_PX, _SHIFT_PX), (0, 0))
    padded = np.pad(frames_NTHWC[:, chosen], padding, mode="edge")
    height, width = frames_NTHWC.shape[2:4]
    seen = np.empty((len(padded), len(chosen), height, width, 3), np.uint8)
    for one, target in zip(padded, seen, strict=True):
        down, right = rng.integers(2 * _SHIFT_PX + 1, size=2)
        target[:] = one[:, down : down + height, right : right + width]
    return seen


def _of_frames(labels: dict[str, torch.Tensor], frames: int) -> dict[str, torch.Tensor]:
    """Labels of every frame; the early one, where the object has hardly moved, does not tell the motion."""
    repeated = {name: numbers_N[:, None].repeat(1, frames) for name, numbers_N in labels.items()}
    if "motion" in repeated and frames > 1:
        repeated["motion"][:, 0] = UNKNOWN
    return {name: numbers_NT.flatten() for name, numbers_NT in repeated.items()}


def _detail_loss(
    trainer: ClipTrainer, frames_NTHWC: np.ndarray, labels: dict[str, torch.Tensor], rng: np.random.Generator
) -> torch.Tensor:
    """Half of the samples: style from an enlarged detail; shape and scene and family with swapped colours."""
    half = len(frames_NTHWC) // 2
    if half == 0:
        return torch.zeros(())
    frame = rng.integers(frames_NTHWC.shape[1], size=half)
    pictures_NHWC, quarter = frames_NTHWC[np.arange(half), frame], half // 2
    detail_NCHW = _random_details(to_clip_input(pictures_NHWC[:quarter, None])[:, 0], rng)
    swapped_NCHW = to_clip_input(pictures_NHWC[quarter:, None][..., rng.permutation(3)])[:, 0]
    _, features_NE = trainer.embed_pixels(torch.cat([detail_NCHW, swapped_NCHW])[:, None])
    of_details = {name: labels[name][:quarter] for name in labels if name in _ORDERLESS}
    of_swapped = {
        name: labels[name][quarter:half] for name in labels if name not in _COLOURED and name != "motion"
    }
    return trainer.head_loss(features_NE[:quarter], of_details) + trainer.head_loss(
        features_NE[quarter:], of_swapped
    )


def _random_details(pixels_NCHW: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random squares, enlarged at most as references of the training are."""
    count, _, height, width = pixels_NCHW.shape
    share = rng.uniform(1 / REFERENCE_ENLARGEMENT, 1, size=count)
    room = 1 - share
    across, down = rng.uniform(-room, room), rng.uniform(-room, room)
    affine = np.zeros((count, 2, 3), np.float32)
    affine[:, 0, 0] = affine[:, 1, 1] = share
    affine[:, 0, 2], affine[:, 1, 2] = across, down
    grid = F.affine_grid(torch.from_numpy(affine), [count, 3, height, width], align_corners=False)
    return F.grid_sample(pixels_NCHW, grid, padding_mode="border", align_corners=False)
