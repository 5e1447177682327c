"""Rows that go wrong on the device: they kill, hang, run out of memory or come out as NaN. Their neighbours are fine."""

from collections.abc import Mapping

from benchmarks.faults.audit import Expected
from benchmarks.faults.fault import Fault, spread
from benchmarks.faults.lab import Lab, write_manifest
from benchmarks.faults.life import Life, local_arguments
from benchmarks.faults.outputs import LocalOutput
from benchmarks.faults.result import Result

KINDS = ("poison", "hang", "device_error", "out_of_memory", "nan")
_RENDER_TIMEOUT_S = 25  # a process's first batch, on a busy machine, takes some of it
_GOOD_ROWS = 6

# kind -> (point, action, lasting), and what must come of the row.
_DONE_TO_A_ROW = {
    "poison": ("render", "kill-self", True),
    "hang": ("render", "hang", False),
    "device_error": (None, "device-error", False),
    "out_of_memory": (None, "out-of-memory", True),
    "nan": (None, "nan", True),
}
_EXPECTED = {
    "poison": Expected(("quarantined",), ("process_died",)),
    "out_of_memory": Expected(("failed",), ("out_of_memory",)),
    "nan": Expected(("failed",), ("non_finite",)),
}


def run(lab: Lab, name: str, counts: Mapping[str, int]) -> Result:
    """One run over rows of all these kinds; a row that hangs, or breaks the device, once is well the second time."""
    kinds = [kind for kind in KINDS for _ in range(counts.get(kind, 0))]
    rows = lab.pool(len(kinds) + _GOOD_ROWS)
    expected = lab.expected(rows)
    faults = []
    for index, (kind, row) in enumerate(zip(kinds, spread(rows, len(kinds)), strict=True)):
        point, action, lasting = _DONE_TO_A_ROW[kind]
        row["num_samples"] = 1
        expected.pop((row["row_id"], 1), None)
        expected[row["row_id"], 0] = _EXPECTED.get(kind, expected[row["row_id"], 0])
        faults.append(Fault(f"{kind}-{index:02d}", kind, point, row["row_id"], action, lasting))
    write_manifest(lab.base / f"{name}.parquet", rows)
    output = LocalOutput(lab.folder / "out" / name)
    flags = ("--unit-rows", "2", "--render-timeout-s", str(_RENDER_TIMEOUT_S))
    life = Life(lab, name, output, local_arguments(lab, f"{name}.parquet", output, *flags), expected, faults)
    life.run_until_done()
    return life.result()
