"""What an exception says of the device: full, broken for good, or neither."""

import re

import torch

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
