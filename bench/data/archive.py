"""Numpy archives (.npz), read within bounds: a member that inflates beyond all measure is refused before it does."""

import math
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bench.data.unpickle import regular
from bench.errors import DataError, TransientDataError

_MOST = 1 << 25  # bytes that any archive may inflate to, however small
_FACTOR = 50  # beyond that, bytes per byte of the archive: zero padding deflates well


def load_npz(path: Path, leave_out: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """name -> array. leave_out: endings of the names that are not wanted. Raises DataError, in one line, for a file that
    is missing, damaged, no archive of arrays, or inflates to far more than it is large. No pickle in it is read."""
    found: dict[str, np.ndarray] = {}
    try:
        left = max(_MOST, _FACTOR * regular(path))
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if leave_out and name.endswith(leave_out):
                    continue
                left -= member.file_size
                if left < 0:
                    raise DataError(f"{path}: '{name}' inflates to {member.file_size:,} bytes; refused")
                with archive.open(member) as file:
                    found[name] = _array(file, member.file_size, name)
    except DataError:
        raise
    except FileNotFoundError:
        raise TransientDataError(f"{path}: no such file") from None
    except OSError as error:
        raise TransientDataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: truncated or damaged, or no numpy archive ({str(error)[:120]})") from None
    except Exception as error:  # zlib, lzma, an unknown method, encryption: a damaged archive may raise anything
        raise DataError(f"{path}: truncated or damaged ({' '.join(str(error).split())[:120]})") from None
    return found


def _array(file: BinaryIO, size: int, name: str) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file, max_header_size=4096)
    if dtype.kind not in "biufSU" or not dtype.itemsize or dtype.kind == "f" and dtype.itemsize > 8:
        raise ValueError(f"'{name}' holds {dtype}, not numbers or text")
    if math.prod(shape) * dtype.itemsize > size or not all(0 <= n <= size for n in shape):
        raise ValueError(f"'{name}' declares more than it holds")
    content = file.read(math.prod(shape) * dtype.itemsize)
    if file.read(1):
        raise ValueError(f"'{name}' holds more than it declares")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
