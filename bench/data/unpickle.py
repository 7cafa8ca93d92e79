"""A pickle reader that rebuilds numpy arrays, plain containers and primitives, and refuses everything else.

A pickle is a program: it may name any importable object and call it. Feature files of this field are pickles that
people pass around, so every name that rebuild.py does not know is refused before it is imported, and what a file may
ask for is bounded by its own size (budget.py). That takes the interpreter of pickles that is written in Python; arrays,
which are most of a feature file, cost the same in either.
"""

import os
import pickle
import stat
from pathlib import Path
from typing import Any, BinaryIO

from bench.data.budget import Budget, check_key, check_tree, text_of
from bench.data.foreign import kind, named
from bench.data.rebuild import Rebuild
from bench.errors import DataError, TransientDataError

_UNUSED = (  # opcodes that no feature file has: instances of classes, the extension registry, out-of-band buffers
    pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.OBJ, pickle.INST, pickle.EXT1, pickle.EXT2, pickle.EXT4,
    pickle.PERSID, pickle.BINPERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
)  # fmt: skip


class _Bounded:
    """A file that nobody can ask for more than there is."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline, self.readinto = file.readline, file.readinto

    def read(self, n: int) -> bytes:
        if n > 4096 and n > self._size - self._file.tell():
            raise EOFError("it declares more bytes than it has")
        return self._file.read(n)


class _Unpickler(pickle._Unpickler):  # type: ignore[misc, name-defined]
    """stdlib's interpreter, its opcodes restricted to plain data and charged to a budget."""

    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        super().__init__(_Bounded(file, size), encoding="latin1")
        self._path, self._budget = path, Budget(size)
        self._rebuild = Rebuild(self._budget)

    def find_class(self, module: str, name: str) -> Any:
        """A look-up in a table: nothing is imported, no attribute is followed."""
        if "\r" in module + name:
            raise pickle.UnpicklingError("carriage returns")
        try:
            return self._rebuild.find(module, name)
        except KeyError:
            raise DataError(f"{self._path}: refused, {named(module, name)}") from None

    def _decode_string(self, value: bytes) -> str:
        return text_of(value)

    def _put(self, index: int) -> None:
        self._budget.take_place(index)
        self.memo[index] = self.stack[-1]

    def _push(self, value: Any) -> None:
        self._budget.take_items(1)
        self.append(value)

    def _add_keys(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise pickle.UnpicklingError(f"adds items to a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                check_key(key)
            target[key] = value

    def _add(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise pickle.UnpicklingError(f"adds items to a {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(items)

    def _add_entries(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not set:
            raise pickle.UnpicklingError(f"adds items to a {type(self.stack[-1]).__name__}")
        for item in items:
            check_key(item)
            self.stack[-1].add(item)

    def _frozen(self) -> None:
        items = self.pop_mark()
        for item in items:
            check_key(item)
        self._push(frozenset(items))

    def _made_dict(self) -> None:
        items = self.pop_mark()
        self._push({})
        self._add_keys(items)

    def _marked(self, make: Any) -> None:
        items = self.pop_mark()
        self._push(make(items))

    def _last(self, n: int) -> list[Any]:
        items = self.stack[-n:]
        del self.stack[-n:]
        if len(items) < n:
            raise pickle.UnpicklingError("the stack is empty")
        return items

    def _build(self) -> None:
        made, state = self._last(2)
        self.append(made)
        self._rebuild.build(made, state)

    def _unused(self) -> None:
        raise pickle.UnpicklingError("it holds objects of classes, which no feature file does")

    dispatch |= dict.fromkeys((code[0] for code in _UNUSED), _unused)
    dispatch |= {
        pickle.BUILD[0]: _build,
        pickle.BINPUT[0]: lambda self: self._put(self.read(1)[0]),
        pickle.LONG_BINPUT[0]: lambda self: self._put(int.from_bytes(self.read(4), "little")),
        pickle.PUT[0]: lambda self: self._put(int(self.readline()[:-1])),
        pickle.MEMOIZE[0]: lambda self: self._put(len(self.memo)),
        pickle.EMPTY_LIST[0]: lambda self: self._push([]),
        pickle.EMPTY_DICT[0]: lambda self: self._push({}),
        pickle.EMPTY_SET[0]: lambda self: self._push(set()),
        pickle.LIST[0]: lambda self: self._marked(list),
        pickle.TUPLE[0]: lambda self: self._marked(tuple),
        pickle.TUPLE1[0]: lambda self: self._push(tuple(self._last(1))),
        pickle.TUPLE2[0]: lambda self: self._push(tuple(self._last(2))),
        pickle.TUPLE3[0]: lambda self: self._push(tuple(self._last(3))),
        pickle.DICT[0]: _made_dict,
        pickle.FROZENSET[0]: _frozen,
        pickle.APPEND[0]: lambda self: self._add(self._last(1)),
        pickle.APPENDS[0]: lambda self: self._add(self.pop_mark()),
        pickle.SETITEM[0]: lambda self: self._add_keys(self._last(2)),
        pickle.SETITEMS[0]: lambda self: self._add_keys(self.pop_mark()),
        pickle.ADDITEMS[0]: lambda self: self._add_entries(self.pop_mark()),
    }


def load_pickle(path: str | os.PathLike) -> Any:
    """The content of a pickle (protocols 0-5, numpy 1 or 2), with arrays as instances of np.ndarray.

    Raises DataError, in one line, if the file is missing, is no pickle, is damaged, asks for more than a file of its
    size can hold, or names anything but numpy arrays, plain containers and primitives. Nothing that a file names is
    imported or run.
    """
    path = Path(path)
    try:
        size = regular(path)
        with open(path, "rb") as file:
            content = _Unpickler(file, path, size).load()
            check_tree(content, size)
            return content
    except DataError:
        raise
    except FileNotFoundError:
        raise TransientDataError(f"{path}: no such file") from None
    except OSError as error:
        raise TransientDataError(f"{path}: cannot be read ({error.strerror})") from None
    except MemoryError:
        raise TransientDataError(f"{path}: does not fit into memory") from None
    except Exception as error:  # a damaged pickle may raise anything
        if known := kind(path):
            raise DataError(f"{path}: {known}") from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: truncated or damaged ({reason}); download it again") from None


def regular(path: Path) -> int:
    """Size of a regular file. Raises OSError, or DataError for a device, a pipe or a folder."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise DataError(f"{path}: cannot be read (Is a directory)")
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: cannot be read (not a regular file)")
    return found.st_size
