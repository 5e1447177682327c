"""Damage that waits in an output: what crashes, disks and people leave behind. The next run must not be fooled."""

import json
import random
import secrets
from collections.abc import Mapping

from benchmarks.faults.fault import Fault, spread
from benchmarks.faults.lab import Lab, write_manifest
from benchmarks.faults.life import Life, local_arguments
from benchmarks.faults.outputs import LocalOutput, Output
from benchmarks.faults.result import Result

KINDS = ("partial_mp4", "damaged_commit", "orphaned_file")
_SPARE_ROWS = 4


def run(lab: Lab, name: str, counts: Mapping[str, int]) -> Result:
    """A finished output, damaged, then the same command."""
    chance = random.Random(lab.seed)
    kinds = [kind for kind in KINDS for _ in range(counts.get(kind, 0))]
    chance.shuffle(kinds)
    rows = lab.pool(len(kinds) + _SPARE_ROWS)
    chosen = spread(rows, len(kinds))
    faults = [
        Fault(f"{kind}-{index:02d}", kind, row_id=row["row_id"])
        for index, (kind, row) in enumerate(zip(kinds, chosen, strict=True))
    ]
    write_manifest(lab.base / f"{name}.parquet", rows)
    output = LocalOutput(lab.folder / "out" / name)
    arguments = local_arguments(lab, f"{name}.parquet", output, "--unit-rows", "4")
    life = Life(lab, name, output, arguments, lab.expected(rows), faults)
    if life.run_once() == 0:
        commits = _commit_names(output)
        for fault in faults:
            _DAMAGE[fault.kind](life, output, commits[fault.row_id or ""], chance)
            life.directory.claim(fault)
        life.run_until_done()
    return life.result()


def _commit_names(output: Output) -> dict[str, str]:
    """The commit of each row's first sample."""
    names = {}
    for name in output.names("commits"):
        record = json.loads(output.read(name))
        if record["sample_index"] == 0:
            names[record["row_id"]] = name
    return names


def _partial_mp4(life: Life, output: Output, commit: str, chance: random.Random) -> None:
    """A video cut off or overwritten in part, as a store without atomic writes leaves it, and not committed."""
    record = json.loads(output.read(commit))
    name = record["video_uri"].removeprefix(output.uri + "/")
    video = output.read(name)
    cut = chance.randrange(len(video))
    kept = chance.choice([video[:cut], video[:cut] + bytes(len(video) - cut), b""])
    output.write(name, kept)
    output.delete(commit)
    life.directory.log("damaged", record["row_key"], record["row_id"])


def _damaged_commit(life: Life, output: Output, commit: str, chance: random.Random) -> None:
    """A commit of which only a part is there; its video is whole."""
    body = output.read(commit)
    cut = chance.randrange(len(body))
    output.write(commit, chance.choice([b"", body[:cut], bytes(len(body)), b"[]", chance.randbytes(64)]))


def _orphaned_file(life: Life, output: Output, commit: str, chance: random.Random) -> None:
    """A file that no run asked for, beside the row's own."""
    folder = commit.rpartition("/")[0]
    name = chance.choice(
        [
            f"{folder}/.{secrets.token_hex(8)}.tmp",
            f"{folder}/notes.txt",
            f"videos/00/.{secrets.token_hex(8)}.tmp",
            f"videos/00/{secrets.token_hex(16)}.mp4",
            f"attempts/00/.{secrets.token_hex(8)}.tmp",
        ]
    )
    output.write(name, chance.randbytes(100))


_DAMAGE = {
    "partial_mp4": _partial_mp4,
    "damaged_commit": _damaged_commit,
    "orphaned_file": _orphaned_file,
}
