"""Guidance formulas on numbers small enough to check by hand."""

import pytest
import torch

from stylecrafter.guidance import Guidance, GuidedModel, paper_guidance, published_guidance, single_guidance
from stylecrafter.validation import per_row

FULL, TEXT, UNCOND = (torch.full((1, 1, 1, 1, 1), value) for value in (5.0, 3.0, 2.0))


def test_formulas():
    scales = torch.tensor(15.0), torch.tensor(7.5)
    assert published_guidance(FULL, TEXT, UNCOND, *scales).item() == 5 + 7.5 * 2 + 15 * 1
    assert paper_guidance(FULL, TEXT, UNCOND, *scales).item() == 2 + 15 * 1 + 7.5 * 2
    assert single_guidance(FULL, UNCOND, scales[0]).item() == 2 + 15 * 3


def test_published_form_with_text_scale_one_is_unguided():
    assert published_guidance(FULL, TEXT, UNCOND, torch.tensor(1.0), torch.tensor(7.5)).item() == 5


def test_rows_have_their_own_scales():
    guidance = Guidance(torch.tensor([15.0, 1.0]), torch.tensor([7.5, 7.5]))
    branches = [x.expand(2, 1, 1, 1, 1) for x in (FULL, UNCOND, TEXT)]
    assert guidance.combine(branches).flatten().tolist() == [35.0, 5.0]


@pytest.mark.parametrize(
    ("text_scale", "style_scale", "form", "needed"),
    [
        (1.0, None, "published", False),
        (1.0, 7.5, "published", False),
        (1.0, 7.5, "paper", True),
        (2.0, None, "published", True),
    ],
)
def test_unconditional_branch_is_run_only_when_needed(text_scale, style_scale, form, needed):
    style = None if style_scale is None else torch.tensor([style_scale])
    assert Guidance(torch.tensor([text_scale]), style, form).needs_uncond is needed


def test_per_row():
    assert per_row(2, 3, "x").tolist() == [2.0, 2.0, 2.0]
    assert per_row([1, 2], 2, "x").tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"x has 2 values; allowed are 1 or one per row \(3\)"):
        per_row([1, 2], 3, "x")


@pytest.mark.parametrize("batch_branches", [False, True])
@pytest.mark.parametrize("image_mode", [False, True])
def test_branches_share_what_comes_before_the_text(pipeline, golden, monkeypatch, batch_branches, image_mode):
    latents = golden["unet.x"][:1, :, :1] if image_mode else golden["unet.x"][:1]
    text = pipeline.encode_prompt(["a cat", "a dog"])
    model = GuidedModel(
        unet=pipeline.unet,
        guidance=Guidance.of(15.0, None, "published", 1),
        text_BSE=text[:1],
        uncond_BSE=text[1:],
        style=None,
        depth_features=(),
        fps_B=None,
        image_mode=image_mode,
        batch_branches=batch_branches,
    )
    calls = []
    handle = pipeline.unet.transformer_in.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        found = model(latents, 500)
        counted = len(calls)
        full, uncond = (
            pipeline.unet(latents, 500, one, image_mode=image_mode).sample for one in text.split(1)
        )
    handle.remove()
    torch.testing.assert_close(found, single_guidance(full, uncond, torch.tensor(15.0)), rtol=1e-4, atol=1e-4)
    assert counted == (0 if image_mode else 1)
