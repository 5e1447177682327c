"""Everything in S3, behind a proxy that answers with errors, breaks off, is slow or is gone for a while."""

import random
from collections.abc import Mapping
from dataclasses import replace

from benchmarks.faults.audit import Problem
from benchmarks.faults.fault import Fault
from benchmarks.faults.lab import Lab, put_lab, write_manifest
from benchmarks.faults.life import Life
from benchmarks.faults.outputs import S3Output
from benchmarks.faults.proxy import KINDS as KINDS
from benchmarks.faults.proxy import Schedule
from benchmarks.faults.result import Result
from examples.s3_server import S3Server
from tests.support.faulty_proxy import FaultyProxy

_ROWS = 40
_QUICK_ROWS = 6
_PATIENCE_S = 12
_LONG_OUTAGE_S = 35


def run(lab: Lab, name: str, counts: Mapping[str, int]) -> Result:
    """One manifest, from S3 to S3; what is transient must not be seen in any record.

    The last of several outages is longer than the run's patience: it ends with 3, and the next one continues.
    """
    kinds = [kind for kind in KINDS for _ in range(counts.get(kind, 0))]
    random.Random(lab.seed).shuffle(kinds)
    faults = [Fault(f"{kind}-{index:02d}", kind) for index, kind in enumerate(kinds)]
    outages = [index for index, kind in enumerate(kinds) if kind == "s3_outage"]
    if len(outages) > 1:
        last = outages[-1]
        faults[last] = replace(faults[last], action=str(_LONG_OUTAGE_S))
    rows = lab.pool(_ROWS if len(faults) > len(KINDS) else _QUICK_ROWS)
    write_manifest(lab.base / f"{name}.parquet", rows)
    with S3Server(lab.folder / f"s3-{name}") as server:
        put_lab(lab, server.client(), f"{name}.parquet")
        output = S3Output(server.client(), "outputs", name)
        arguments = ("--manifest", f"s3://styles/{name}.parquet", "--model", "s3://styles/model")
        flags = ("--output", output.uri, "--storage-patience-s", str(_PATIENCE_S))
        life = Life(lab, name, output, [*arguments, *flags], lab.expected(rows), faults, may_break=True)
        with FaultyProxy(server.endpoint) as proxy:
            proxy.faults = Schedule(faults, life.directory.claim, lab.seed)
            life.environment = server.environment() | {"AWS_ENDPOINT_URL": proxy.url}
            life.run_until_done()
        life.environment = server.environment()
        found = life.result()
        if len(outages) > 1 and 3 not in life.codes:
            what = f"no run ended with 3 in an outage of {_LONG_OUTAGE_S} s: {life.codes}"
            found.problems.append(Problem("wrong", None, what))
        return found
