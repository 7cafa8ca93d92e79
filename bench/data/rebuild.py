"""What a pickle's names become: stand-ins that rebuild dtypes, arrays, scalars and plain containers and check what
they are given. Nothing is imported by name, no attribute is followed, and everything is paid for (budget.py)."""

import math
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.data.budget import Budget, check_key

_KINDS = "biufSUO"  # dtype kinds: bool, int, unsigned, float, bytes, str, object
_ORDERS = "<>|="
_NDARRAY = "numpy.ndarray"  # what the name `numpy.ndarray` becomes: a word, not a class that could be called


class Dtype:
    """Stands for a numpy dtype. Structured and sub-array dtypes are refused."""

    def __init__(self, spec: Any) -> None:
        if not isinstance(spec, str) or len(spec) > 16:
            raise pickle.UnpicklingError(f"dtype {type(spec).__name__} is not supported")
        self.value = _plain(np.dtype(spec))

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 5:
            raise pickle.UnpicklingError("malformed dtype")
        _version, order, *structure = state[:5]
        if structure != [None, None, None] or not isinstance(order, str) or len(order) != 1 or order not in _ORDERS:
            raise pickle.UnpicklingError("structured dtypes are not supported")
        self.value = _plain(self.value.newbyteorder(order))


def _plain(dtype: np.dtype) -> np.dtype:
    if dtype.kind not in _KINDS or dtype.fields or dtype.subdtype or dtype.kind == "f" and dtype.itemsize > 8:
        raise pickle.UnpicklingError(f"dtype {dtype} is not supported")
    return dtype


class Rebuild:
    """The functions that one file may call. `find` looks a name up; `build` is what a pickle's BUILD does."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        table: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _NDARRAY,
            ("numpy", "dtype"): lambda spec, align=False, copy=False: Dtype(spec),
            ("_codecs", "encode"): self._encode,
            ("collections", "OrderedDict"): lambda items=(): self._dict(OrderedDict, items),
            ("collections", "defaultdict"): self._defaultdict,
            ("__main__", "return_unk"): lambda: 0,  # default of the word tables in some word-level pickles
        }
        for core in ("numpy.core", "numpy._core"):  # numpy 1, numpy 2
            table[core + ".multiarray", "_reconstruct"] = self._reconstruct
            table[core + ".multiarray", "scalar"] = self._scalar
            table[core + ".numeric", "_frombuffer"] = self._frombuffer
        for builtins in ("builtins", "__builtin__"):  # Python 3, Python 2
            table[builtins, "bytes"] = lambda: b""
            table[builtins, "list"] = lambda items=(): list(self._counted(items))
            table[builtins, "dict"] = lambda items=(): self._dict(dict, items)
            table[builtins, "set"] = lambda items=(): set(self._keys(items))
            table[builtins, "frozenset"] = lambda items=(): frozenset(self._keys(items))
            table[builtins, "int"] = lambda value=0: int(self._number(value))
            table[builtins, "float"] = lambda value=0: float(self._number(value))
        self._table = table

    def find(self, module: str, name: str) -> Any:
        """Raises KeyError for a name that is not in the table."""
        return self._table[module, name]

    def build(self, made: Any, state: Any) -> None:
        """Give a dtype or an array its state, as `__setstate__` would."""
        if isinstance(made, Dtype):
            made.set_state(state)
        elif type(made) is np.ndarray:
            self._fill(made, state)
        else:
            raise pickle.UnpicklingError(f"sets the state of a {type(made).__name__}")

    def _reconstruct(self, subtype: Any, shape: Any, typecode: Any) -> np.ndarray:
        if subtype is not _NDARRAY:
            raise pickle.UnpicklingError("array subclasses are not supported")
        self.budget.take_items(1)
        return np.ndarray((0,), np.int8)

    def _fill(self, array: np.ndarray, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise pickle.UnpicklingError("malformed array")
        version, shape, dtype, fortran, data = state
        dtype = self._fits(shape, dtype)
        count = math.prod(shape)
        if dtype.hasobject:
            fits = type(data) is list and len(data) == count
        else:
            data = data.encode("latin-1") if isinstance(data, str) else data  # written by Python 2
            fits = type(data) is bytes and len(data) == count * dtype.itemsize
        if not fits:
            raise pickle.UnpicklingError("an array's data do not fit its shape")
        array.__setstate__((version, shape, dtype, bool(fortran), data))

    def _fits(self, shape: Any, dtype: Any) -> np.dtype:
        """The dtype, after the array is paid for. An array of nothing must not pretend to have many rows."""
        if not isinstance(dtype, Dtype) or type(shape) is not tuple or len(shape) > 8:
            raise pickle.UnpicklingError("malformed array")
        if not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError("malformed array")
        if dtype.value.itemsize == 0 and math.prod(shape):
            raise pickle.UnpicklingError("an array's items are zero bytes wide")
        if not math.prod(shape):
            self.budget.take_items(math.prod(n for n in shape if n))
        self.budget.take(math.prod(shape) * dtype.value.itemsize + 64)
        return dtype.value

    def _frombuffer(self, buffer: Any, dtype: Any, shape: Any, order: str, axis_order: Any = None) -> np.ndarray:
        """Protocol 5 arrays, whose bytes lie in the file."""
        if type(buffer) not in (bytes, bytearray) or not isinstance(dtype, Dtype) or dtype.value.hasobject:
            raise pickle.UnpicklingError("malformed array")
        if type(shape) is int:
            shape = (shape,)
        self._fits(shape, dtype)
        flat = np.frombuffer(buffer, dtype.value)
        if axis_order is not None:
            return flat.reshape(shape).transpose(axis_order)
        return flat.reshape(shape, order=order)

    def _scalar(self, dtype: Any, data: Any = b"") -> Any:
        if not isinstance(dtype, Dtype) or dtype.value.hasobject:
            raise pickle.UnpicklingError("malformed scalar")
        self.budget.take(dtype.value.itemsize)
        data = data.encode("latin-1") if isinstance(data, str) else data
        return np.frombuffer(data, dtype.value, 1)[0] if dtype.value.itemsize else dtype.value.type()

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        """Bytes as protocols 0-2 spell them."""
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"encoding {encoding} is not supported")
        self.budget.take(len(text))
        return text.encode("latin-1")

    def _counted(self, items: Any) -> Any:
        if not isinstance(items, (list, tuple, dict, set, frozenset)):
            raise pickle.UnpicklingError(f"makes a container of a {type(items).__name__}")
        self.budget.take_items(len(items))
        return items

    def _keys(self, items: Any) -> Any:
        for item in self._counted(items):
            check_key(item)
        return items

    def _dict(self, make: Callable[[Any], Any], items: Any) -> Any:
        pairs = list(items.items()) if isinstance(items, dict) else list(self._counted(items))
        self.budget.take_items(len(pairs))
        for key, _ in pairs:
            check_key(key)
        return make(pairs)

    def _defaultdict(self, factory: Any = None, items: Any = ()) -> defaultdict:
        if factory is not None and factory not in self._table.values():
            raise pickle.UnpicklingError("malformed defaultdict")
        return defaultdict(factory, self._dict(dict, items))

    @staticmethod
    def _number(value: Any) -> Any:
        if not isinstance(value, (str, bytes, int, float)) or isinstance(value, (str, bytes)) and len(value) > 400:
            raise pickle.UnpicklingError("malformed number")
        return value
