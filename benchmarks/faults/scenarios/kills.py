"""SIGKILL on one machine: the driver, its actors, all of its Ray, the picture decoders; at seeded points of rows' lives.

A killed run leaves its lease behind, which stands in the way of the next one: a fault of its own kind. Where a run
left none, a silent one of another machine is put there.
"""

import itertools
import json
import random
import time
from collections.abc import Mapping
from dataclasses import replace

from benchmarks.faults.fault import Fault, spread
from benchmarks.faults.lab import Lab, write_manifest
from benchmarks.faults.life import NORMAL, Life, Result, local_arguments
from benchmarks.faults.outputs import LocalOutput, Output

KINDS = ("kill_driver", "kill_actor", "kill_ray", "kill_decoder", "stale_lease")
_LEASE = "run/lease.json"
_FOREIGN = {
    "token": "0" * 32,
    "run_id": "another",
    "host": "elsewhere",
    "machine": "elsewhere",
    "pid": 1,
    "since": "2020-01-01T00:00:00+00:00",
    "heartbeat_at": "2020-01-01T00:00:00+00:00",
}
_SPARE_ROWS = 4
_POINTS = {  # of the first faults of a kind; then again from the start
    "kill_driver": ("uploaded", "render", "received", "committed", "upload", "rendered"),
    "kill_actor": ("uploaded", "committed", "render", "rendered", "upload"),
    "kill_ray": ("committed", "uploaded", "render", "upload", "rendered"),
    "kill_decoder": ("fetch",),
}
_DRIVER_POINTS = ("snapshot", "snapshotted", "planned")  # once each: they need no row, and the run is short
_ACTIONS = {
    "kill_driver": "kill-driver",
    "kill_actor": "kill-self",
    "kill_ray": "kill-ray",
    "kill_decoder": "kill-decoder",
}


def run(lab: Lab, counts: Mapping[str, int]) -> Result:
    """One manifest that is finished in spite of all of them."""
    started = time.monotonic()
    chance = random.Random(lab.seed)
    kinds = [kind for kind in _ACTIONS for _ in range(counts.get(kind, 0))]
    chance.shuffle(kinds)
    rows = lab.pool(len(kinds) + _SPARE_ROWS)
    faults = [
        Fault(f"{kind}-{index:02d}", kind, row_id=row["row_id"], action=_ACTIONS[kind])
        for index, (kind, row) in enumerate(zip(kinds, spread(rows, len(kinds)), strict=True))
    ]
    faults = _at_points(faults)
    if counts.get("kill_driver", 0) > len(_DRIVER_POINTS):
        _kill_between_rows(faults)
    leases = [
        Fault(f"stale_lease-{index:02d}", "stale_lease") for index in range(counts.get("stale_lease", 0))
    ]
    write_manifest(lab.base / "kills.parquet", rows)
    output = LocalOutput(lab.folder / "out" / "kills")
    arguments = local_arguments(lab, "kills.parquet", output, "--unit-rows", "1")
    life = Life(lab, "kills", output, arguments, lab.expected(rows), [*faults, *leases], may_break=True)
    waiting = list(leases)
    life.run_until_done(between=lambda: _leave_lease(life, output, waiting))
    while waiting and life.codes[-1] in NORMAL:
        _leave_lease(life, output, waiting)
        life.run_once()
    return life.result(started)


def _at_points(faults: list[Fault]) -> list[Fault]:
    """The faults of each kind, one after another at that kind's points."""
    points = {kind: itertools.cycle(points) for kind, points in _POINTS.items()}
    return [replace(fault, point=next(points[fault.kind])) for fault in faults]


def _kill_between_rows(faults: list[Fault]) -> None:
    """Some of the driver's deaths come before the first row and after the last one."""
    drivers = [index for index, fault in enumerate(faults) if fault.kind == "kill_driver"]
    for index, point in zip(drivers, _DRIVER_POINTS, strict=False):
        faults[index] = replace(faults[index], point=point, row_id=None)


def _leave_lease(life: Life, output: Output, waiting: list[Fault]) -> None:
    """Counts the lease that a killed run left; every other one is one of another machine, long silent."""
    if not waiting:
        return
    fault = waiting.pop(0)
    if int(fault.id[-2:]) % 2 or _LEASE not in output.names("run"):
        output.write(_LEASE, json.dumps(_FOREIGN).encode())
    life.directory.claim(fault)
