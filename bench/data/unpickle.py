"""A pickle reader that rebuilds numpy arrays, plain containers and primitives, and refuses everything else.

A pickle is a program: it may name any importable object and call it. Feature files of this field are pickles that
people pass around, so every name outside the table below is refused before it is imported. numpy's own
reconstruction functions are not called with what a file asks for either (a crafted dtype or an object array laid
over raw bytes reads foreign memory): small stand-ins rebuild dtypes, arrays and scalars and check them first.
"""

import math
import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bench.errors import DataError

_KINDS = "biufSUO"  # dtype kinds: bool, int, unsigned, float, bytes, str, object


class _Dtype:
    """Stands for a numpy dtype. Structured and sub-array dtypes are refused."""

    def __init__(self, spec: Any) -> None:
        if not isinstance(spec, str):
            raise pickle.UnpicklingError(f"dtype {type(spec).__name__} is not supported")
        self.value = _plain(np.dtype(spec))

    def __setstate__(self, state: tuple) -> None:
        _version, byteorder, subdtype, names, fields = state[:5]
        if (subdtype, names, fields) != (None, None, None):
            raise pickle.UnpicklingError("structured dtypes are not supported")
        self.value = _plain(self.value.newbyteorder(byteorder))


def _plain(dtype: np.dtype) -> np.dtype:
    if dtype.kind not in _KINDS or dtype.fields or dtype.subdtype:
        raise pickle.UnpicklingError(f"dtype {dtype} is not supported")
    return dtype


class _Array(np.ndarray):
    """An array whose pickled state is checked before numpy takes it: sizes agree, objects come as a list."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError("malformed array")
        dtype, count = dtype.value, math.prod(shape)
        if dtype.hasobject:
            fits = type(data) is list and len(data) == count
        else:
            data = data.encode("latin1") if type(data) is str else data  # written by Python 2
            fits = type(data) is bytes and len(data) == count * dtype.itemsize
        if not fits:
            raise pickle.UnpicklingError("an array's data do not fit its shape")
        super().__setstate__((version, shape, dtype, bool(fortran), data))


_NDARRAY = "numpy.ndarray"  # what the name `numpy.ndarray` becomes: a word, not a class that could be called


def _reconstruct(subtype: Any, shape: Any, typecode: Any) -> np.ndarray:
    if subtype is not _NDARRAY:
        raise pickle.UnpicklingError("array subclasses are not supported")
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: str, axis_order: Any = None) -> np.ndarray:
    """Protocol 5 arrays, whose bytes lie in the file."""
    if type(buffer) not in (bytes, bytearray) or not isinstance(dtype, _Dtype) or dtype.value.hasobject:
        raise pickle.UnpicklingError("malformed array")
    flat = np.frombuffer(buffer, dtype.value)
    if axis_order is not None:
        return flat.reshape(shape).transpose(axis_order)
    return flat.reshape(shape, order=order)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, _Dtype) or dtype.value.hasobject:
        raise pickle.UnpicklingError("malformed scalar")
    data = data.encode("latin1") if type(data) is str else data
    return np.frombuffer(data, dtype.value, 1)[0] if dtype.value.itemsize else dtype.value.type()


def _dtype(spec: Any, align: Any = False, copy: Any = False) -> _Dtype:
    return _Dtype(spec)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes as protocols 0-2 spell them."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding} is not supported")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _zero() -> int:
    """Default of the word tables in some word-level pickles, whose factory was a function of the writing script."""
    return 0


def _allowed() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): _dtype,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "defaultdict"): defaultdict,
        ("__main__", "return_unk"): _zero,
    }
    for core in ("numpy.core", "numpy._core"):  # numpy 1, numpy 2
        table[core + ".multiarray", "_reconstruct"] = _reconstruct
        table[core + ".multiarray", "scalar"] = _scalar
        table[core + ".numeric", "_frombuffer"] = _frombuffer
    for builtins in ("builtins", "__builtin__"):  # Python 3, Python 2
        table[builtins, "bytes"] = _empty_bytes
        for harmless in (list, dict, set, frozenset, int, float):
            table[builtins, harmless.__name__] = harmless
    return table


_ALLOWED = _allowed()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """A look-up in a table: nothing is imported, no attribute is followed."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(
                f"{self._path}: refused, the pickle names {module}.{name}; only numpy arrays, plain containers and "
                "primitives are read"
            ) from None


def load_pickle(path: str | os.PathLike) -> Any:
    """The content of a pickle (protocols 0-5, numpy 1 or 2), with arrays as instances of np.ndarray.

    Raises DataError, in one line, if the file is missing, is no pickle, is damaged, or names anything but numpy
    arrays, plain containers and primitives. Nothing that a file names is imported or run.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.peek(24)[:24]
            return _Unpickler(file, path).load()
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except MemoryError:
        raise DataError(f"{path}: does not fit into memory") from None
    except Exception as error:  # a damaged pickle may raise anything
        if not head.startswith(b"\x80"):  # how every pickle since protocol 2 starts
            what = f"it starts with {head!r}" if head else "it is empty"
            raise DataError(f"{path}: not a pickle ({what}); download it again") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: truncated or damaged ({reason}); download it again") from None
