"""The scenarios: each a manifest's life, in which some kinds of faults happen together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.faults.lab import Lab
from benchmarks.faults.result import Result
from benchmarks.faults.scenarios import inputs, kills, leftovers, nodes, rows, storage


@dataclass(frozen=True)
class Scenario:
    """One of them.

    Args:
        run: injects so many faults of each kind; the name is for its files.
        goes_on: what is there of it when it was stopped is where it goes on; else it begins anew.
    """

    name: str
    kinds: tuple[str, ...]
    run: Callable[[Lab, str, Mapping[str, int]], Result]
    goes_on: bool = False


# Few minutes each, so that a round which is stopped loses little.
SCENARIOS = (
    Scenario("inputs", inputs.KINDS, inputs.run),
    Scenario("storage", storage.KINDS, storage.run),
    Scenario("leftovers", leftovers.KINDS, leftovers.run),
    Scenario("devices", ("hang", "device_error", "out_of_memory", "nan"), rows.run, goes_on=True),
    Scenario("poison", ("poison",), rows.run, goes_on=True),
    Scenario("processes", ("kill_actor", "kill_decoder"), kills.run, goes_on=True),
    Scenario("drivers", ("kill_driver", "stale_lease"), kills.run, goes_on=True),
    Scenario("ray", ("kill_ray",), kills.run, goes_on=True),
    Scenario("nodes", nodes.KINDS, nodes.run),
)
