"""The OpenCLIP tokenizer on top of transformers' CLIP tokenizer.

Shapes: B prompts, S tokens of a prompt.
"""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from pathlib import Path

import ftfy
import torch
from transformers import CLIPTokenizer

# diffusers finds out how to load a component by the base class that the component's module names.
from transformers import PreTrainedTokenizerFast as PreTrainedTokenizerFast

CLIP_VOCABULARY_SIZE = 49408
PUBLISHED_MERGES = Path(__file__).parent / "data" / "bpe_simple_vocab_16e6.txt.gz"
_MERGE_COUNT = CLIP_VOCABULARY_SIZE - 2 * 256 - 2


class OpenClipTokenizer(CLIPTokenizer):
    """Prompts to ids as OpenCLIP makes them: cleaned text, 77 ids, padded with 0.

    A text tower with fewer than 49,408 embeddings (a small test or demo model) gets folded ids: the
    two markers become the last two, 0 stays 0, all others share what is left.

    Args:
        text_vocab_size: embeddings of the text tower, at least 4.
        prompt_length: ids per prompt, markers included.
    """

    def __init__(self, *args, text_vocab_size: int = CLIP_VOCABULARY_SIZE, prompt_length: int = 77, **kwargs):
        super().__init__(*args, text_vocab_size=text_vocab_size, prompt_length=prompt_length, **kwargs)
        self.text_vocab_size = text_vocab_size
        self.prompt_length = prompt_length

    def prompt_ids(self, prompts: Sequence[str]) -> torch.Tensor:
        """Ids of prompts, int64 [B, S]; a long prompt is cut and still ends with the end marker."""
        rows = [self._ids(prompt) for prompt in prompts]
        ids_BS = torch.zeros(len(rows), self.prompt_length, dtype=torch.int64)
        for row, ids in zip(ids_BS, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return fold_ids(ids_BS, self.text_vocab_size)

    def _ids(self, prompt: str) -> list[int]:
        # What looks like a marker inside a prompt is text, not a marker.
        words = self(clean_prompt(prompt), add_special_tokens=False, split_special_tokens=True, verbose=False)
        words_fit = words["input_ids"][: self.prompt_length - 2]
        return [CLIP_VOCABULARY_SIZE - 2, *words_fit, CLIP_VOCABULARY_SIZE - 1]


def clean_prompt(prompt: str) -> str:
    """Repair mis-decoded characters, resolve HTML entities (twice), collapse white space, lower the case."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split()).lower()


def fold_ids(ids: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """CLIP ids in a vocabulary of `vocab_size`; unchanged if it has all 49,408.

    Raises:
        ValueError: `vocab_size` is under 4.
    """
    if vocab_size >= CLIP_VOCABULARY_SIZE:
        return ids
    if vocab_size < 4:
        raise ValueError(f"text_vocab_size is {vocab_size}; it must be at least 4")
    start, end = CLIP_VOCABULARY_SIZE - 2, CLIP_VOCABULARY_SIZE - 1
    folded = torch.where(ids == 0, 0, 1 + (ids - 1) % (vocab_size - 3))
    folded = torch.where(ids == start, vocab_size - 2, folded)
    return torch.where(ids == end, vocab_size - 1, folded)


def tokenizer_from_merges(
    merges_file: Path, text_vocab_size: int, prompt_length: int = 77
) -> OpenClipTokenizer:
    """Build the tokenizer from OpenAI's `bpe_simple_vocab_16e6.txt.gz`."""
    with gzip.open(merges_file, "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().split("\n")[1 : _MERGE_COUNT + 1]]
    letters = list(_byte_letters())
    words = letters + [letter + "</w>" for letter in letters] + ["".join(merge) for merge in merges]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return OpenClipTokenizer(
        vocab=vocabulary, merges=merges, text_vocab_size=text_vocab_size, prompt_length=prompt_length
    )


def _byte_letters() -> str:
    """One printable letter for each byte in the order of the vocabulary: printable bytes first."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = len(set(range(256)) - set(printable))
    return "".join(map(chr, printable)) + "".join(chr(256 + index) for index in range(others))
