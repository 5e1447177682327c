"""What a scenario did and found, and the file that keeps it for a round which is stopped and goes on later."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.faults.audit import Problem
from benchmarks.faults.fault import Fault


@dataclass
class Result:
    """What a scenario did and found."""

    scenario: str
    injected: list[Fault] = field(default_factory=list)
    missed: list[Fault] = field(default_factory=list)  # planned, but its moment never came
    problems: list[Problem] = field(default_factory=list)
    runs: int = 0
    wall_s: float = 0.0

    def save(self, path: Path) -> None:
        """Writes it as a whole: a file that is there is complete."""
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(asdict(self), indent=1))
        unfinished.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Result | None":
        """A saved one, or None."""
        try:
            values = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        for name, kind in (("injected", Fault), ("missed", Fault), ("problems", Problem)):
            values[name] = [kind(**value) for value in values[name]]
        return cls(**values)
