"""Depth in NumPy's files. Nothing in them is carried out: a header says what the bytes after it are."""

import io
import math
import zipfile
import zlib

import numpy as np

from schemas.record import ErrorClass, RowError

_MAGIC, _ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
_MAX_HEADER_CHARS = 10_000
_ITEM_BYTES = 8  # of the widest numbers
_KINDS = "biuf"  # truth values, whole numbers, floats
_MEMBER = "depth.npy"


def is_array_file(data: bytes) -> bool:
    """Whether this begins as .npy or .npz."""
    return data.startswith((_MAGIC, _ZIP_MAGIC))


def read_depth_array(data: bytes, max_values: int) -> np.ndarray:
    """The array of a .npy, or of a .npz that holds one or calls one `depth`: [T, H, W], or [T, H, W, 1 or 3].

    One of [H, W] is a single frame.

    Raises:
        RowError: ASSET_TOO_LARGE, before anything is unpacked; ASSET_UNDECODABLE for whatever else is wrong.
    """
    if data.startswith(_ZIP_MAGIC):
        data = _member(data, max_values)
    shape, is_fortran, dtype, start = _header(data)
    if dtype.kind not in _KINDS or dtype.itemsize > _ITEM_BYTES:
        raise _refused(f"the array holds {dtype}; allowed are whole numbers and floats of up to 64 bits")
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) not in (3, 4) or 0 in shape or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise _refused(
            f"the array has shape {shape}; allowed are (T, H, W), (T, H, W, 1) and (T, H, W, 3), not empty"
        )
    count = math.prod(shape)
    if count > max_values:
        message = f"the array has {count} values; at most {max_values} are allowed"
        raise RowError(ErrorClass.ASSET_TOO_LARGE, message)
    if len(data) - start < count * dtype.itemsize:
        raise _refused(f"the array is truncated: {len(data) - start} bytes of {count * dtype.itemsize}")
    values = np.frombuffer(data, dtype, count, start)
    return values.reshape(shape, order="F" if is_fortran else "C")


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether it lies in Fortran's order, type, and where the values begin."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            found = np.lib.format.read_array_header_1_0(stream, _MAX_HEADER_CHARS)
        elif version == (2, 0):
            found = np.lib.format.read_array_header_2_0(stream, _MAX_HEADER_CHARS)
        else:
            raise _refused(f"version {version} of .npy is not one of (1, 0), (2, 0)")
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise _refused(f"this is no whole .npy file ({' '.join(str(error).split())[:200]})") from None
    shape, is_fortran, dtype = found
    if any(side < 0 for side in shape):
        raise _refused(f"the array has shape {shape}")
    return shape, is_fortran, dtype, stream.tell()


def _member(data: bytes, max_values: int) -> bytes:
    """The bytes of a .npz file's one array."""
    most = max_values * _ITEM_BYTES + 2 * _MAX_HEADER_CHARS
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            if _MEMBER in names:
                names = [_MEMBER]
            if len(names) != 1:
                raise _refused(f"the .npz holds {len(names)} arrays; it must hold one, or call one 'depth'")
            with archive.open(names[0]) as member:
                unpacked = member.read(most + 1)  # whatever size the archive promises
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise _refused(f"this is no whole .npz file ({' '.join(str(error).split())[:200]})") from None
    if len(unpacked) > most:
        message = f"the array unpacks to more than the {most} bytes allowed"
        raise RowError(ErrorClass.ASSET_TOO_LARGE, message)
    return unpacked


def _refused(message: str) -> RowError:
    return RowError(ErrorClass.ASSET_UNDECODABLE, message)
