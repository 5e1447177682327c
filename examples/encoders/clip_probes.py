"""What a frozen CLIP tells of the demo world: linear probes of its vision tokens, and distances of words.

Shapes: N pictures or prompts, S text tokens, P vision tokens, E channels, K values of a label.
"""

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPModel

from examples.demo_world.captions import MOVING
from examples.demo_world.dataset import Look, still
from examples.demo_world.shapes import SHAPES
from examples.demo_world.world import MOTIONS, SCENES, Split
from examples.encoders.clip_data import UNKNOWN, VALUES, number
from examples.encoders.clip_trainer import to_clip_input
from stylecrafter.text_encoder import UNUSED_LAYERS
from stylecrafter.tokenizer import OpenClipTokenizer

PROBED = ("shape", "scene", "family", "palette")  # a still does not tell the motion
_RIDGE = 1e-2


@torch.no_grad()
def probe(
    clip: CLIPModel, tokenizer: OpenClipTokenizer, seed: int, size: int = 64, count: int = 800
) -> dict[str, float]:
    """Accuracies of probes fitted on training combinations and tested on held-out ones, and `word_spreads`.

    Args:
        count: stills to test with; three times as many fit the probes.
    """
    features_NE, labels = _features(clip, seed + 1, "train", size, 3 * count)
    tested_NE, truth = _features(clip, seed + 1, "held-out", size, count)
    found = {}
    for name in PROBED:
        weights_EK = _fitted(features_NE, labels[name], len(VALUES[name]))
        right = _with_one(tested_NE).matmul(weights_EK).argmax(1) == truth[name]
        found[f"probe_{name}"] = float(right.float().mean())
    return found | word_spreads(clip, tokenizer)


@torch.no_grad()
def word_spreads(clip: CLIPModel, tokenizer: OpenClipTokenizer) -> dict[str, float]:
    """How far prompts that differ in one word lie apart in the states that condition the UNet.

    `spread_WORD` is the root mean square over tokens and channels, the mean over pairs of prompts;
    `spread_motion_share` is that of motion words over that of shape words.
    """
    words = {"shape": SHAPES, "scene": SCENES, "motion": MOTIONS}
    found = {}
    for name, values in words.items():
        others = {key: all_values for key, all_values in words.items() if key != name}
        distances = []
        for template, *rest in product(MOVING, *others.values()):
            same = dict(zip(others, rest, strict=True))
            states_NSE = _states(
                clip, tokenizer, [template.format(**same, **{name: value}) for value in values]
            )
            distances.append(_mean_distance(states_NSE))
        found[f"spread_{name}"] = float(np.mean(distances))
    return found | {"spread_motion_share": found["spread_motion"] / found["spread_shape"]}


def _states(clip: CLIPModel, tokenizer: OpenClipTokenizer, prompts: list[str]) -> torch.Tensor:
    """[N, S, E], as stylecrafter.text_encoder.text_embedding gives them."""
    text_model = clip.text_model
    hidden = text_model(tokenizer.prompt_ids(prompts), output_hidden_states=True).hidden_states
    return text_model.final_layer_norm(hidden[-1 - UNUSED_LAYERS])


def _mean_distance(states_NSE: torch.Tensor) -> float:
    rows, columns = np.triu_indices(len(states_NSE), k=1)
    return float((states_NSE[rows] - states_NSE[columns]).square().mean(dim=(1, 2)).sqrt().mean())


def _features(
    clip: CLIPModel, seed: int, split: Split, size: int, count: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """CLS and mean patch token [N, 2 E] of styled stills, and their labels."""
    look: Look = "styled"
    samples = [still(seed, i, split=split, look=look, size=size) for i in range(count)]
    features = []
    for start in range(0, count, 64):
        pixels = to_clip_input(np.stack([one.frames_THWC for one in samples[start : start + 64]]))[:, 0]
        output = clip.vision_model(pixels)
        features.append(torch.cat([output.pooler_output, output.last_hidden_state[:, 1:].mean(1)], dim=-1))
    labels = {
        name: torch.tensor([number(name, getattr(one.labels, name)) for one in samples]) for name in PROBED
    }
    assert all(bool((numbers != UNKNOWN).all()) for numbers in labels.values())
    return torch.cat(features), labels


def _fitted(features_NE: torch.Tensor, labels_N: torch.Tensor, values: int) -> torch.Tensor:
    """Ridge regression onto one-hot labels."""
    inputs = _with_one(features_NE)
    moment = inputs.T @ inputs
    moment.diagonal().add_(_RIDGE * moment.diagonal().mean())
    return torch.linalg.solve(moment, inputs.T @ F.one_hot(labels_N, values).float())


def _with_one(features_NE: torch.Tensor) -> torch.Tensor:
    return F.pad(features_NE, (0, 1), value=1.0)
