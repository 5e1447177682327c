"""Sweeps: which combinations they make, and how those are called."""

import pytest
from pydantic import ValidationError

from schemas.run import RenderRun
from schemas.settings import SETTING_NAMES
from schemas.sweep import Sweep, swept_values


def run(**values):
    return RenderRun(manifest="m", model="model", output="o", **values)


def test_without_a_sweep_there_is_one_combination_that_changes_nothing():
    assert Sweep().combinations() == [("", {})]


def test_combinations_are_the_cross_product_named_by_all_swept_values():
    sweep = Sweep(text_guidance_scale=(7.5, 15), style_scale=(1, 0.5))
    assert [swept_values(one.variant) for one in sweep.combinations()] == [
        {name: str(value) for name, value in one.settings.items()} for one in sweep.combinations()
    ]
    assert sweep.combinations() == [
        ("style_scale=1.0,text_guidance_scale=7.5", {"style_scale": 1.0, "text_guidance_scale": 7.5}),
        ("style_scale=1.0,text_guidance_scale=15.0", {"style_scale": 1.0, "text_guidance_scale": 15.0}),
        ("style_scale=0.5,text_guidance_scale=7.5", {"style_scale": 0.5, "text_guidance_scale": 7.5}),
        ("style_scale=0.5,text_guidance_scale=15.0", {"style_scale": 0.5, "text_guidance_scale": 15.0}),
    ]


def test_a_longer_list_renames_nothing():
    few, more = Sweep(num_inference_steps=(10, 20)), Sweep(num_inference_steps=(5, 10, 20))
    assert {one.variant for one in few.combinations()} < {one.variant for one in more.combinations()}


def test_every_swept_field_is_a_setting():
    assert set(Sweep.model_fields) <= set(SETTING_NAMES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"style_scale": (1, 1.0)}, "style_scale = 1.0 1.0: no value may stand there twice"),
        ({"style_scale": (11,)}, "less than or equal to 10"),
        ({"num_inference_steps": range(1, 18), "style_scale": range(10), "text_guidance_scale": (1, 2)}, "340 combinations"),
        ({"prompt": ("a",)}, "Extra inputs"),
    ],
)  # fmt: skip
def test_what_makes_no_grid_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        Sweep(**values)


def test_a_setting_is_swept_or_set():
    with pytest.raises(ValidationError, match=r"style_scale = 1\.0: it is in sweep too"):
        run(style_scale=1.0, sweep={"style_scale": (0.5, 1)})
    assert run(eta=0.5, sweep={"style_scale": (0.5, 1)}).sweep.axes == {"style_scale": (0.5, 1.0)}


def test_a_kept_config_gives_the_same_sweep():
    asked = run(sweep={"style_scale": (0.5, 1)})
    assert RenderRun.model_validate_json(asked.model_dump_json()) == asked
