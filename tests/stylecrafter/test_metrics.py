"""CLIP scores: the full towers with projections, and the reductions."""

import numpy as np
import pytest
import torch

from stylecrafter.checkpoint_files import read_weights
from stylecrafter.metrics import (
    clip_image_embeddings,
    clip_style_score,
    clip_temp_score,
    clip_text_embeddings,
    clip_text_score,
)

X, Y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


@torch.no_grad()
def test_image_embedding_is_the_projected_class_token(pipeline, golden, published, references, check):
    weights = read_weights(published["open_clip"])
    expected = golden["style.image_tokens"][:1, 0] @ weights["visual.proj"].float()
    pixels = pipeline.feature_extractor.style(references[:1])
    check(pipeline.image_encoder(pixels).image_embeds, expected, 1e-5)


@torch.no_grad()
def test_text_embedding_is_the_projected_end_of_the_last_layer(pipeline, published, check):
    prompts = ["a dog", "a red house on a hill"]
    actual = clip_text_embeddings(pipeline.text_encoder, pipeline.tokenizer, prompts)
    ids = pipeline.tokenizer.prompt_ids(prompts)
    ends = ids.argmax(dim=1)
    hidden = pipeline.text_encoder.text_model(ids).last_hidden_state
    weights = read_weights(published["checkpoint"])["cond_stage_model.model.text_projection"]
    expected = hidden[torch.arange(2), ends] @ weights.float()
    check(actual, torch.nn.functional.normalize(expected, dim=-1), 1e-5)


def test_embeddings_do_not_depend_on_the_batch(pipeline, check):
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
    arguments = pipeline.image_encoder, pipeline.feature_extractor, frames
    one, many = (clip_image_embeddings(*arguments, batch_size=size) for size in (1, 4))
    check(one, many, 1e-5)
    assert torch.allclose(one.norm(dim=-1), torch.ones(5))


def test_reductions():
    frames = torch.stack([X, Y, Y])
    assert clip_text_score(frames, 2 * X) == pytest.approx(1 / 3)
    assert clip_style_score(frames, torch.stack([X, Y])) == pytest.approx(1 / 2)
    assert clip_temp_score(frames) == pytest.approx(1 / 2)


def test_a_single_frame_has_no_temporal_score():
    assert clip_temp_score(X[None]) is None
