"""Measured figures as the JSON lines that every benchmark ends with."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_DIGITS = 4


@dataclass(frozen=True)
class Figure:
    """One measured number: the median of `n` repeats, and the smallest and largest of them."""

    name: str
    value: float
    unit: str
    n: int
    spread: tuple[float, float]

    @classmethod
    def of_repeats(cls, name: str, unit: str, values: Sequence[float]) -> "Figure":
        """The figure that repeated measurements give.

        Raises:
            ValueError: there are none; a figure that was not measured is left out, never filled in.
        """
        if not values:
            raise ValueError(f"figure {name!r}: at least one measurement is needed, got none")
        return cls(name, statistics.median(values), unit, len(values), (min(values), max(values)))

    def as_json_line(self) -> str:
        """The figure as one JSON object on one line."""
        return json.dumps(
            {
                "name": self.name,
                "value": round(self.value, _DIGITS),
                "unit": self.unit,
                "n": self.n,
                "spread": [round(value, _DIGITS) for value in self.spread],
            }
        )
