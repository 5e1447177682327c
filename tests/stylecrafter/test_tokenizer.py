"""OpenCLIP's ids: cleaning, padding, truncation, and the folding for small vocabularies."""

import pytest
import torch

from stylecrafter.tokenizer import (
    CLIP_VOCABULARY_SIZE,
    PUBLISHED_MERGES,
    OpenClipTokenizer,
    clean_prompt,
    fold_ids,
    tokenizer_from_merges,
)

START, END = CLIP_VOCABULARY_SIZE - 2, CLIP_VOCABULARY_SIZE - 1
EXCLAMATION = 256


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_from_merges(PUBLISHED_MERGES, CLIP_VOCABULARY_SIZE)


def test_ids_are_those_of_open_clip(tokenizer, golden):
    prompts = ["A field of sunflowers on a sunny day.", "A wolf walking stealthily through the forest.", ""]
    assert torch.equal(tokenizer.prompt_ids(prompts), golden["text.token_ids_clip"])


def test_folding(golden):
    assert torch.equal(fold_ids(golden["text.token_ids_clip"], 512), golden["text.token_ids"])
    with pytest.raises(ValueError, match="text_vocab_size is 3"):
        fold_ids(golden["text.token_ids_clip"], 3)


def test_padding_is_zero_and_an_exclamation_mark_is_not(tokenizer):
    ids = tokenizer.prompt_ids(["!"])[0].tolist()
    assert ids[:3] == [START, EXCLAMATION, END]
    assert set(ids[3:]) == {0}


def test_long_prompts_are_cut_and_still_end(tokenizer):
    ids = tokenizer.prompt_ids(["cat " * 200])
    assert ids.shape == (1, 77)
    assert ids[0, 0] == START
    assert ids[0, -1] == END


def test_markers_in_a_prompt_are_text(tokenizer):
    ids = tokenizer.prompt_ids(["a <|endoftext|> b"])[0].tolist()
    assert ids.count(END) == 1


def test_cleaning():
    assert clean_prompt("  A   cat\n&amp;amp; a DOG  ") == "a cat & a dog"
    assert clean_prompt("Van Gogh\u2019s") == "van gogh's"


def test_save_and_load(tokenizer, tmp_path):
    small = tokenizer_from_merges(PUBLISHED_MERGES, 512, prompt_length=20)
    small.save_pretrained(tmp_path)
    loaded = OpenClipTokenizer.from_pretrained(tmp_path)
    prompts = ["A field of sunflowers!", "naïve café, 5 o'clock"]
    assert torch.equal(loaded.prompt_ids(prompts), small.prompt_ids(prompts))
    assert loaded.prompt_ids(prompts).shape == (2, 20)
