"""What the machine's processors did while something ran, as far as Linux tells (`/proc`)."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_IDLE, _IOWAIT, _STEAL = 3, 4, 7
_COUNTED = 8  # the fields of /proc/stat after `steal` are parts of the ones before
# Of /proc/PID/stat, counted from behind the command's name: parent, then time in user mode and in the kernel, of the
# process itself and of the children that it has waited for.
_PARENT, _TIMES = 1, slice(11, 15)


@dataclass(frozen=True)
class CpuTime:
    """Processor seconds since the machine started."""

    total_s: float
    idle_s: float
    stolen_s: float  # wanted by this machine, given by its host to another


def read_cpu_time(proc: Path = _PROC) -> CpuTime | None:
    """The counters now, or None on a system that has none."""
    if not (proc / "stat").is_file():
        return None
    fields = (proc / "stat").read_text().splitlines()[0].split()[1 : 1 + _COUNTED]
    ticks = [int(field) for field in fields] + [0] * (_COUNTED - len(fields))
    per_s = os.sysconf("SC_CLK_TCK")
    return CpuTime(sum(ticks) / per_s, (ticks[_IDLE] + ticks[_IOWAIT]) / per_s, ticks[_STEAL] / per_s)


def tree_cpu_s(roots: Iterable[int], proc: Path = _PROC) -> float:
    """Processor seconds of processes and all their living descendants, with what these have waited for."""
    parents, ticks = {}, {}
    for stat in proc.glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended in between
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(fields[_PARENT])
        ticks[pid] = sum(map(int, fields[_TIMES]))
    tree = set(roots)
    while grown := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= grown
    return sum(ticks.get(pid, 0) for pid in tree) / os.sysconf("SC_CLK_TCK")


def stolen_share(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """The share of all processor time between two readings that the host gave to other machines, in [0, 1]."""
    if before is None or after is None or after.total_s <= before.total_s:
        return None
    return (after.stolen_s - before.stolen_s) / (after.total_s - before.total_s)


def others_share(before: CpuTime | None, after: CpuTime | None, mine_s: float) -> float | None:
    """The share that went to processes other than ours, which used `mine_s` seconds, in [0, 1]."""
    if before is None or after is None or after.total_s <= before.total_s:
        return None
    idle_s = after.idle_s - before.idle_s + after.stolen_s - before.stolen_s
    busy_s = after.total_s - before.total_s - idle_s
    return max(0.0, busy_s - mine_s) / (after.total_s - before.total_s)
