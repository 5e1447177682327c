"""One micro-batch, and how it travels: a row of an Arrow table, pixels as bytes.

Shapes: B samples, T frames, H, W pixels, C = 3 channels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

_SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64()),
        pa.field("kind", pa.string()),
        pa.field("positions", pa.list_(pa.int64())),
        pa.field("target", pa.large_binary()),
        pa.field("target_shape", pa.list_(pa.int64())),
        pa.field("reference", pa.large_binary()),
        pa.field("reference_shape", pa.list_(pa.int64())),
        pa.field("depth", pa.large_binary()),
        pa.field("captions", pa.list_(pa.string())),
        pa.field("problems", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class MicroBatch:
    """What one training worker puts through the model at once; all samples are of one kind."""

    index: int  # of the run's micro-batches, over all workers
    kind: str  # "image" (T = 1) or "video"
    positions_B: np.ndarray  # int64, in the kind's stream: epoch * rows + index within the epoch
    target_BTHWC: np.ndarray  # uint8 RGB
    reference_B3HW: np.ndarray | None  # float32, as `StyleImageProcessor.style` gives it
    captions: list[str]
    depth_BTHWC: np.ndarray | None = None  # uint8 RGB of the target's shape, grey
    problems: list[str] = field(default_factory=list)  # what could not be read, and what stands in for it


def to_table(batches: Sequence[MicroBatch]) -> pa.Table:
    """One row per micro-batch."""
    return pa.Table.from_pylist([_as_row(batch) for batch in batches], schema=_SCHEMA)


def from_table(table: pa.Table) -> Iterator[MicroBatch]:
    """The micro-batches of a table. Their arrays are copies: the table's memory can go."""
    for batch in table.to_batches():
        for row in range(batch.num_rows):
            yield _from_row({name: batch.column(name)[row] for name in _SCHEMA.names})


def _as_row(batch: MicroBatch) -> dict[str, Any]:
    reference = batch.reference_B3HW
    return {
        "index": batch.index,
        "kind": batch.kind,
        "positions": batch.positions_B,
        "target": batch.target_BTHWC.tobytes(),
        "target_shape": batch.target_BTHWC.shape,
        "reference": None if reference is None else reference.tobytes(),
        "reference_shape": None if reference is None else reference.shape,
        "depth": None if batch.depth_BTHWC is None else batch.depth_BTHWC.tobytes(),
        "captions": batch.captions,
        "problems": batch.problems,
    }


def _from_row(row: dict[str, pa.Scalar]) -> MicroBatch:
    return MicroBatch(
        index=row["index"].as_py(),
        kind=row["kind"].as_py(),
        positions_B=np.array(row["positions"].as_py(), np.int64),
        target_BTHWC=_array(row["target"], row["target_shape"], np.uint8),
        reference_B3HW=(
            _array(row["reference"], row["reference_shape"], np.float32)
            if row["reference"].is_valid
            else None
        ),
        captions=row["captions"].as_py(),
        depth_BTHWC=(_array(row["depth"], row["target_shape"], np.uint8) if row["depth"].is_valid else None),
        problems=row["problems"].as_py(),
    )


def _array(data: pa.Scalar, shape: pa.Scalar, dtype: Any) -> np.ndarray:
    return np.frombuffer(data.as_buffer(), dtype).reshape(shape.as_py()).copy()
