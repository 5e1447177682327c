"""SIGKILL on one machine: the driver, its actors, all of its Ray, the picture decoders; at seeded points of rows' lives.

A killed run leaves its lease behind, which stands in the way of the next one: a fault of its own kind. Where a run
left none, a silent one of another machine is put there.
"""

import itertools
import json
import random
from collections.abc import Mapping

from benchmarks.faults.fault import Fault, spread
from benchmarks.faults.lab import Lab, write_manifest
from benchmarks.faults.life import NORMAL, Life, local_arguments
from benchmarks.faults.outputs import LocalOutput, Output
from benchmarks.faults.result import Result

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
    "kill_driver": (
        "uploaded",
        "render",
        "snapshot",
        "received",
        "committed",
        "planned",
        "upload",
        "rendered",
        "snapshotted",
        "uploaded",
    ),
    "kill_actor": ("uploaded", "committed", "render", "starting", "rendered", "upload"),
    "kill_ray": ("committed", "uploaded", "session", "render", "starting", "upload", "rendered"),
    "kill_decoder": ("fetch",),
}
_OF_NO_ROW = {"planned", "session", "starting", "snapshot", "snapshotted"}
_ACTIONS = {
    "kill_driver": "kill-driver",
    "kill_actor": "kill-self",
    "kill_ray": "kill-ray",
    "kill_decoder": "kill-decoder",
}


def run(lab: Lab, name: str, counts: Mapping[str, int]) -> Result:
    """One manifest that is finished in spite of all of them."""
    chance = random.Random(lab.seed)
    kinds = [kind for kind in _ACTIONS for _ in range(counts.get(kind, 0))]
    chance.shuffle(kinds)
    rows = lab.pool(len(kinds) + _SPARE_ROWS)
    points = {kind: itertools.cycle(points) for kind, points in _POINTS.items()}
    faults = [
        _fault(f"{kind}-{index:02d}", kind, next(points[kind]), row["row_id"])
        for index, (kind, row) in enumerate(zip(kinds, spread(rows, len(kinds)), strict=True))
    ]
    leases = [
        Fault(f"stale_lease-{index:02d}", "stale_lease") for index in range(counts.get("stale_lease", 0))
    ]
    write_manifest(lab.base / f"{name}.parquet", rows)
    output = LocalOutput(lab.folder / "out" / name)
    # Where each fault ends the run, a second actor would cost more time than it saves.
    actors = () if "kill_actor" in counts else ("--actors", "1")
    arguments = local_arguments(lab, f"{name}.parquet", output, "--unit-rows", "1", *actors)
    life = Life(lab, name, output, arguments, lab.expected(rows), [*faults, *leases])
    life.may_break = "kill_ray" in kinds
    waiting = [lease for lease in leases if lease.id not in life.directory.fired()]
    life.run_until_done(between=lambda: _leave_lease(life, output, waiting))
    while waiting and life.codes[-1] in NORMAL:
        _leave_lease(life, output, waiting)
        life.run_once()
    return life.result()


def _fault(name: str, kind: str, point: str, row_id: str) -> Fault:
    return Fault(name, kind, point, None if point in _OF_NO_ROW else row_id, _ACTIONS[kind])


def _leave_lease(life: Life, output: Output, waiting: list[Fault]) -> None:
    """Counts the lease that a killed run left; every other one is one of another machine, long silent."""
    if not waiting:
        return
    fault = waiting.pop(0)
    if int(fault.id[-2:]) % 2 or _LEASE not in output.names("run"):
        output.write(_LEASE, json.dumps(_FOREIGN).encode())
    life.directory.claim(fault)
