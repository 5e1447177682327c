"""Sweeps: lists of values for some settings; every manifest row is rendered with every combination of them."""

from itertools import product
from math import prod
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.settings import GuidanceScale, Scheduler, StepCount, StyleScale

_MAX_COMBINATIONS = 256


class Combination(NamedTuple):
    """One value for each swept setting."""

    variant: str  # its name in records; empty where nothing is swept
    settings: dict[str, Any]


class Sweep(BaseModel):
    """Settings to sweep: every row is rendered with every combination of these lists."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_metavars: ClassVar[dict[str, str]] = {
        "text_guidance_scale": "X",
        "style_guidance_scale": "X",
        "style_scale": "X",
        "num_inference_steps": "N",
    }

    # A field is named as its setting, and swept by being here.
    text_guidance_scale: tuple[GuidanceScale, ...] = Field((), description="values of text_guidance_scale")
    style_guidance_scale: tuple[GuidanceScale, ...] = Field((), description="values of style_guidance_scale")
    style_scale: tuple[StyleScale, ...] = Field((), description="values of style_scale")
    num_inference_steps: tuple[StepCount, ...] = Field((), description="values of num_inference_steps")
    scheduler: tuple[Scheduler, ...] = Field((), description="values of scheduler")

    @model_validator(mode="after")
    def _different_and_few(self) -> "Sweep":
        for name, values in self.axes.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {' '.join(map(str, values))}: no value may stand there twice")
        if (count := prod(map(len, self.axes.values()))) > _MAX_COMBINATIONS:
            raise ValueError(f"{count} combinations: at most {_MAX_COMBINATIONS} are allowed")
        return self

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The swept settings and their values, in alphabetical order."""
        return {name: values for name, values in sorted(self) if values}

    def combinations(self) -> list[Combination]:
        """Every combination, the last axis changing fastest; without a sweep, the one that changes nothing.

        A name says all swept values, the run's own too: it means the same when a list is made longer.
        """
        axes = self.axes
        chosen = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
        return [
            Combination(",".join(f"{name}={value}" for name, value in one.items()), one) for one in chosen
        ]


def swept_values(variant: str) -> dict[str, str]:
    """The values that a combination's name says, by setting."""
    return dict(one.split("=", 1) for one in variant.split(",") if one)  # no value has a comma in it
