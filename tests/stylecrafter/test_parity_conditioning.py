"""Prompts and references against the published implementation."""

import torch

from stylecrafter.style_encoder import image_tokens

ENCODER_LIMIT = 1e-5
PROMPTS = ["A field of sunflowers on a sunny day.", "A wolf walking stealthily through the forest.", ""]
PIXEL_STRIDE = 4


def test_token_ids(pipeline, golden):
    assert torch.equal(pipeline.tokenizer.prompt_ids(PROMPTS), golden["text.token_ids"])


def test_text_embedding(pipeline, golden, check):
    check(pipeline.encode_prompt(golden["text.token_ids"]), golden["text.embedding"], ENCODER_LIMIT)


def test_text_embedding_from_prompts(pipeline, golden, check):
    check(pipeline.encode_prompt(PROMPTS), golden["text.embedding"], ENCODER_LIMIT)


def test_preprocessing_of_pictures_of_any_size(pipeline, golden, check, references):
    pixels = pipeline.feature_extractor.style(references)
    check(pixels[..., ::PIXEL_STRIDE, ::PIXEL_STRIDE], golden["style.preprocessed"], ENCODER_LIMIT)


@torch.no_grad()
def test_image_tokens(pipeline, golden, check, references):
    pixels = pipeline.feature_extractor.style(references)
    check(image_tokens(pipeline.image_encoder, pixels), golden["style.image_tokens"], ENCODER_LIMIT)
    rounded = image_tokens(pipeline.image_encoder, pixels, round_to_half=True)
    check(rounded, golden["style.image_tokens_half"].float(), 1e-4)
    assert torch.equal(rounded, rounded.half().float())


def test_style_tokens_of_one_reference(pipeline, golden, check, references):
    tokens = torch.cat([pipeline.encode_style(reference) for reference in references])
    check(tokens, golden["style.tokens"], ENCODER_LIMIT)


@torch.no_grad()
def test_style_tokens_of_rounded_image_tokens(pipeline, golden, check):
    tokens = pipeline.style_adapter.encode(golden["style.image_tokens_half"].float())
    check(tokens, golden["style.tokens_from_half"], ENCODER_LIMIT)


def test_style_tokens_of_three_references(pipeline, golden, check, references):
    check(pipeline.encode_style(references), golden["style.multi.tokens"], ENCODER_LIMIT)


def test_fusion_scales(pipeline, golden, check):
    scales = pipeline.predict_fusion_scales(golden["style.tokens"][:2], golden["text.embedding"][:2])
    check(scales, golden["style.scale"], ENCODER_LIMIT)


def test_fusion_scales_of_three_references(pipeline, golden, check):
    scales = pipeline.predict_fusion_scales(golden["style.multi.tokens"], golden["text.embedding"][:1])
    check(scales, golden["style.multi.scale"], ENCODER_LIMIT)
