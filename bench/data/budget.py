"""How much a pickle may ask for, measured against its own size.

An honest feature file is little more than its arrays: what it makes in memory is about as large as the file. A crafted
one of a few bytes declares gigabytes, shares lists within lists until nobody can walk through them, or contains itself.
"""

import pickle
from typing import Any

import numpy as np

from bench.data.text_bytes import ByteText

_SLACK = 1 << 18  # items that any file may have, however small
_BYTES = 1 << 26  # bytes that any file may have
_DEPTH = 32  # containers within containers; feature files have five
_FACTOR = 4  # bytes of arrays per byte of the file
_KEYS = (str, bytes, int, float, bool, type(None), np.generic)


class Budget:
    """What one file of `size` bytes has left. Every method raises UnpicklingError where it asks for more."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.bytes = _FACTOR * size + _BYTES  # of arrays, strings and declared lengths
        self.items = size // 8 + _SLACK  # entries of containers that are made by calls
        self.memo = size // 8 + _SLACK  # places in the memo

    def take(self, n: int) -> None:
        self.bytes -= n
        if self.bytes < 0:
            raise pickle.UnpicklingError("asks for far more memory than the file is large")

    def take_items(self, n: int) -> None:
        self.items -= n
        if self.items < 0:
            raise pickle.UnpicklingError("asks for far more items than the file is large")

    def take_place(self, index: int) -> None:
        """A place in the memo, where a pickle keeps what it will name again."""
        self.memo -= 1
        if self.memo < 0 or not 0 <= index <= self.size:
            raise pickle.UnpicklingError("keeps far more than the file is large in its memo")


def check_key(key: Any, deep: bool = True) -> None:
    """A key of a dict or an entry of a set: a primitive or a flat tuple of them, so that hashing it takes no time."""
    flat = deep and type(key) is tuple and len(key) <= 16
    for part in key if flat else (key,):
        if not isinstance(part, _KEYS) or isinstance(part, int) and part.bit_length() > 256:
            raise pickle.UnpicklingError(f"a dict's key is a {type(part).__name__}")


def check_tree(root: Any, size: int) -> None:
    """Walks through what a pickle made: no container holds itself, none is nested deeper than 32 levels, and what is
    shared is not larger, counted each time that it is named, than a file of `size` bytes can honestly hold."""
    most = size + _SLACK
    count: dict[int, int] = {}  # id of a finished container -> items in it, shared ones counted again
    open_: set[int] = set()
    stack: list[tuple[Any, Any, int]] = []  # container, iterator over its containers, items so far

    def enter(value: Any) -> None:
        if len(stack) >= _DEPTH:
            raise pickle.UnpicklingError(f"is nested deeper than {_DEPTH} levels")
        open_.add(id(value))
        stack.append((value, iter(_parts(value)), _length(value)))

    if _is_container(root):
        enter(root)
    while stack:
        value, parts, items = stack[-1]
        for part in parts:
            if id(part) in open_:
                raise pickle.UnpicklingError("contains itself")
            if id(part) not in count:
                stack[-1] = value, parts, items
                enter(part)
                break
            items += count[id(part)]
            if items > most:
                raise pickle.UnpicklingError("shares lists within lists: walking through it would not end")
        else:
            stack.pop()
            open_.discard(id(value))
            count[id(value)] = items
            if stack:
                above, rest, so_far = stack[-1]
                so_far += items
                if so_far > most:
                    raise pickle.UnpicklingError("shares lists within lists: walking through it would not end")
                stack[-1] = above, rest, so_far


def _is_container(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.hasobject
    return isinstance(value, (list, tuple, dict, set, frozenset))


def _length(value: Any) -> int:
    return (value.size if isinstance(value, np.ndarray) else len(value)) + 1


def _parts(value: Any) -> list[Any]:
    """The containers in a container; an array of numbers or a string is none."""
    inside = value.values() if isinstance(value, dict) else value.ravel() if isinstance(value, np.ndarray) else value
    return [part for part in inside if _is_container(part)]


def text_of(raw: bytes) -> str:
    """A string of Python 2, which had bytes only: text where it is ASCII, else ByteText."""
    return raw.decode("ascii") if raw.isascii() else ByteText(raw, "latin-1")
