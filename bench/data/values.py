"""Single values of feature files: what counts as a text, an id, an array of numbers. Every complaint is a ValueError
whose message goes on from "... has"."""

import unicodedata
from typing import Any

import numpy as np

from bench.data.text_bytes import ByteText

LONGEST_ID = 256  # letters
_MISSING = ("", "none", "nan", "null")  # ids and transcripts that say that there is none
_PARTS = 6  # of an id that is given as its parts, at most


def as_list(value: Any, what: str) -> list[Any]:
    """A list, tuple or array as a list of its items. Raises ValueError for a single value."""
    if isinstance(value, np.ndarray):
        if not value.ndim:
            raise ValueError(f"a single {value.dtype} in place of {what}")
        if value.dtype.kind == "U":
            _check_letters(value, what)
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return list(value)
    name = "string" if isinstance(value, (str, bytes)) else type(value).__name__
    raise ValueError(f"a single {name} in place of {what}")


def _check_letters(array: np.ndarray, what: str) -> None:
    """Raises ValueError where an array of strings holds what is no letter."""
    if array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).view(np.uint32)
        if int(codes.max()) > 0x10FFFF:
            raise ValueError(f"what is no letter of any script in {what}")


def as_text(value: Any) -> str:
    """A text stored as a string or as its UTF-8 bytes. Raises ValueError for anything else."""
    if isinstance(value, ByteText):
        value = value.text
    elif isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"bytes that are not UTF-8 ({value[:20]!r}) in place of a text") from None
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} ({_short(value)}) in place of a text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"half a surrogate pair ({value[:20]!a}), which no encoding can store")
    return str(value)


def as_transcript(value: Any) -> str | None:
    """A transcript; None where the file says that there is none (None, NaN, or the word "nan" that became of it)."""
    if value is None or isinstance(value, float) and np.isnan(value):
        return None
    text = as_text(value)
    return None if text.strip() in ("nan", "NaN", "None") else text


def as_id(value: Any) -> str:
    """An id stored as text, as a whole number, or as its parts, which are joined by "$_$". Raises ValueError where it
    names nothing or could not be printed."""
    if isinstance(value, np.ndarray):
        value = as_list(value, "an id") if value.ndim else value[()]
    if isinstance(value, (list, tuple)):
        if not 0 < len(value) <= _PARTS:
            raise ValueError(f"{len(value)} parts in place of an id")
        value = value[0] if len(value) == 1 else "$_$".join(_part(v) for v in value)
    text = _part(value)
    if text.strip().lower() in _MISSING:
        raise ValueError(f"no id but {value!r}" if len(text) < 9 else "no id")
    if len(text) > LONGEST_ID:
        raise ValueError(f"an id of {len(text)} letters ({text[:20]!r}...)")
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        raise ValueError(f"an id with control characters ({text[:20]!r})")
    return text


def _part(value: Any) -> str:
    if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
        if abs(value) > 10**30:
            raise ValueError("a number of more than 30 digits in place of an id")
        return str(int(value))
    if isinstance(value, (float, np.floating)) and float(value).is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, (list, tuple, np.ndarray)):
        raise ValueError("lists within lists in place of an id")
    if value is None or isinstance(value, (bool, float, np.floating)):
        raise ValueError(f"{value!r} in place of an id")
    return as_text(value)


def as_numbers(value: Any, words: bool = False) -> np.ndarray:
    """An array of real numbers from an array, from lists of them, or from objects that are numbers; `words`: from
    strings that spell numbers too."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O" and array.ndim and any(np.ndim(v) for v in array.flat):
            array = np.asarray([np.asarray(v) for v in array.tolist()])  # an array of arrays
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"samples of different shapes{_which_differs(value)}") from None
    if array.dtype.kind == "O":
        odd = next((v for v in array.flat if not isinstance(v, (int, float, np.number, str, bytes))), 0)
        if odd is None or not isinstance(odd, (int, float)):
            raise ValueError(f"what is no number ({_short(odd)})")
        try:
            spelt = any(isinstance(v, (str, bytes)) for v in array.flat)
            array = array.astype(np.float64) if words or not spelt else array
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"what is no number ({_short(error)})") from None
    if words and array.dtype.kind in "US":
        try:
            if array.dtype.kind == "U":
                _check_letters(array, "numbers")
            array = array.astype(np.float64)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"what is no number ({_short(error)})") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"no numbers (dtype {array.dtype})")
    return array


def _which_differs(value: Any) -> str:
    try:
        shapes = [np.shape(v) for v in value]
        i = next(i for i, s in enumerate(shapes) if s != shapes[0])
    except (ValueError, TypeError, StopIteration):
        return ""
    return f": the first is {list(shapes[0])}, number {i + 1} is {list(shapes[i])}; pad them to one length"


def column(array: np.ndarray) -> np.ndarray:
    """One number per sample, whether stored as [N], [N, 1] or [N, 1, 1]."""
    while array.ndim > 1 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def video_of(sample: str) -> str:
    """The video that a sample is cut from, as ids of this field say it ("video$_$clip", "video[clip]", "video_clip");
    "" where the id does not say."""
    for mark in ("$_$", "["):
        if mark in sample:
            return sample.split(mark)[0]
    video, mark, clip = sample.rpartition("_")
    return video if mark and clip.isdecimal() else ""


def _short(value: Any) -> str:
    """A few letters of anything, on one line; never the digits of a very long number."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "a very long number"
    return " ".join((str(value) if isinstance(value, Exception) else repr(value)).split())[:60]
