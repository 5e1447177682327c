"""What an exception says of the device: full, broken for good, or neither; and of the row it belongs to."""

import logging
import re

import torch

from actors import logs
from schemas.planned import PlannedRow
from schemas.record import ErrorClass, RowError

logger = logging.getLogger(__name__)

# A kernel that went wrong leaves the process's CUDA context unusable: every later call fails in the same way.
_BROKEN = re.compile(
    r"CUDA error|device-side assert|illegal memory access|unspecified launch failure|uncorrectable|\bECC\b|\bXid\b"
    r"|CUBLAS_STATUS_|CUDNN_STATUS_|CUSOLVER_STATUS_|HIP error|device is lost|fallen off the bus"
)
# The libraries' own words for a card that has no room left for their workspace.
_FULL = re.compile(r"out of memory|_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less work at once may succeed."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and bool(_FULL.search(str(error)))
    )


def is_device_broken(error: BaseException) -> bool:
    """Whether nothing will succeed in this process any more."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or bool(_BROKEN.search(str(error)))


def as_row_error(error: Exception, row: PlannedRow) -> RowError:
    """A failure inside one row's work as that row's error; the traceback goes to the worker's log."""
    if isinstance(error, RowError):
        return error
    logger.error("a row failed", exc_info=error, extra=logs.fields(row_id=row.row_id))
    if is_out_of_memory(error):
        return RowError(ErrorClass.OUT_OF_MEMORY, f"out of memory with a batch of one: {error}")
    return RowError(ErrorClass.RENDER_FAILED, f"{type(error).__name__}: {error}")
