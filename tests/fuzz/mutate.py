"""One thing, or two, wrong with a file: in its values, or in its bytes. All from one random stream."""

import copy
import io
import pickle
import struct
import zipfile
from typing import Any

import numpy as np

from tests.fuzz import seeds

JUNK = [None, 5, True, float("nan"), "nan", "x", b"", b"\xff\xfe", [], {}, (), 2**70, -1, 1e300, "\ud800", [[[]]], [None]]
_NESTED: Any = []
for _ in range(60):
    _NESTED = [_NESTED]


def file_of(reader: str, rng: np.random.Generator) -> tuple[bytes, Any, str]:
    """A mutated file's bytes; its content where only values were changed (else None); what was done, in words."""
    by_bytes = rng.random() < 0.4
    if reader in ("aligned", "unaligned", "word", "hkt"):
        made = seeds.content(reader)
        if not by_bytes:
            done = [(_arrays if "aligned" in reader else _samples)(made, rng) for _ in range(rng.integers(1, 3))]
            return pickle.dumps(made, protocol=int(rng.integers(2, 6))), made, "+".join(done)
        raw = pickle.dumps(made, protocol=int(rng.integers(0, 6)))
    elif reader == "csv":
        table = seeds.rows()
        if not by_bytes:
            done = "+".join(_cells(table, rng) for _ in range(rng.integers(1, 3)))
            return seeds.as_csv(table), None, done
        raw = seeds.as_csv(table)
    elif reader == "wav":
        raw = _wave(rng)
        if not by_bytes:
            return _wave_header(raw, rng)
    else:
        made = seeds.frames()
        if not by_bytes:
            done = "+".join(_frames(made, rng) for _ in range(rng.integers(1, 3)))
            return _npz(made, rng), made, done
        raw = _npz(made, rng)
    return (*_bytes(raw, rng),)


# ---------------------------------------------------------------- bytes


def _bytes(raw: bytes, rng: np.random.Generator) -> tuple[bytes, None, str]:
    data, kind = bytearray(raw), str(rng.choice(["flip", "rand", "zero", "cut", "insert", "opcode", "repeat", "crlf"]))
    at = int(rng.integers(0, max(len(data), 1)))
    if rng.random() < 0.3:
        at = min(at, 200)  # heads are where the structure is
    n = int(rng.integers(1, 12))
    if kind == "flip":
        for _ in range(n):
            data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
    elif kind == "rand":
        data[at : at + n] = rng.bytes(min(n, len(data) - at))
    elif kind == "zero":
        data[at : at + 40 * n] = bytes(len(data[at : at + 40 * n]))
    elif kind == "cut":
        del data[at:]
    elif kind == "insert":
        data[at:at] = rng.bytes(n)
    elif kind == "opcode":
        codes = b"(.0122FIJKLMNPQRSTUVXabcdeghijlopqrstu}]\x80\x81\x82\x85\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95"
        for _ in range(n):
            data[int(rng.integers(0, min(len(data), 2000)))] = codes[int(rng.integers(0, len(codes)))]
    elif kind == "repeat":
        data[at:at] = data[at : at + 30 * n]
    else:
        data = bytearray(bytes(data).replace(b"\n", b"\r\n"))
    return bytes(data), None, f"bytes:{kind}"


# ---------------------------------------------------------------- values


def _array(value: Any, rng: np.random.Generator) -> tuple[Any, str]:
    """Another value in place of an array."""
    try:
        array = np.asarray(value)
    except ValueError:  # ragged by now
        return value, "again"
    if array.dtype.kind == "c":
        return value, "again"
    kind = str(rng.choice([
        "junk", "zero", "big", "big64", "nan", "inf", "-inf", "roll", "turn", "ragged", "short", "f64", "u64", "object",
        "text", "list", "cycle", "nested", "rank+", "rank-", "f16", "none inside", "bool", "empty", "complex", "dates",
    ]))  # fmt: skip
    numeric = array.dtype.kind in "biuf" and array.size > 0
    poke = lambda x, dtype=None: _poked(array.astype(dtype or (array.dtype if array.dtype.kind == "f" else float)), x, rng)
    with np.errstate(all="ignore"):
        if kind == "zero":
            return np.zeros_like(array), kind
        if numeric and kind in ("big", "big64", "nan", "inf", "-inf"):
            x = {"big": 1e30, "big64": 1e300 * (-1) ** int(rng.integers(0, 2)), "nan": np.nan, "inf": np.inf, "-inf": -np.inf}[kind]
            return poke(x, np.float64 if kind == "big64" else None), kind
        if numeric and kind == "u64":
            return array.astype(np.float64).astype(np.int64).astype(np.uint64), kind
        if numeric and kind in ("f64", "f16"):
            return array.astype(np.float64 if kind == "f64" else np.float16), kind
        if numeric and kind == "complex":
            return array.astype(np.complex64), kind
        if numeric and kind == "bool":
            return array > 0, kind
    if kind == "roll" and array.ndim:
        return np.roll(array, 1, axis=int(rng.integers(0, array.ndim))), kind
    if kind == "turn":
        return array.T, kind
    if kind == "short" and array.ndim:
        return array[: len(array) // 2], kind
    if kind == "empty" and array.ndim:
        return array[:0], kind
    if kind == "ragged" and array.ndim:
        return [list(np.ravel(row)[: 1 + i % 2]) for i, row in enumerate(array)], kind
    if kind == "object":
        return array.astype(object), kind
    if kind == "text":
        return array.astype(str), kind
    if kind == "list":
        return array.tolist(), kind
    if kind == "none inside" and array.size:
        return _poked(array.astype(object), None, rng), kind
    if kind == "rank+":
        return array[..., None], kind
    if kind == "rank-" and array.ndim and len(array):
        return array[0], kind
    if kind == "dates":
        return np.array(["2020-01-01"] * max(len(np.atleast_1d(array)), 1), dtype="datetime64[D]"), kind
    if kind == "cycle":
        loop: list[Any] = []
        loop.extend([loop, loop])
        return loop, kind
    if kind == "nested":
        return _NESTED, kind
    return JUNK[int(rng.integers(0, len(JUNK)))], "junk"


def _poked(array: np.ndarray, x: Any, rng: np.random.Generator) -> np.ndarray:
    array = array.copy()
    for _ in range(int(rng.integers(1, 4))):
        array.flat[int(rng.integers(0, array.size))] = x
    return array


def _arrays(data: dict[str, Any], rng: np.random.Generator) -> str:
    """Change something in a file of arrays per split."""
    split = str(rng.choice(list(data)))
    part = data[split]
    if not isinstance(part, dict) or not part:
        return "again"
    kind = str(rng.choice(["array"] * 6 + ["ids", "text", "tokens", "lengths", "labels", "key", "split", "leak"]))
    key = str(rng.choice(list(part)))
    n = len(part["id"]) if isinstance(part.get("id"), np.ndarray) and part["id"].ndim == 1 else 4
    if kind == "ids":
        choice = [[None] * n, [""] * n, ["nan"] * n, list(range(n)), ["a"] * n, [["a", i] for i in range(n)],
                  ["x" * 6000] * n, [f"a\x00{i}" for i in range(n)], [1.5] * n, [b"a%d" % i for i in range(n)],
                  [["a", ["b", ["c"]]]] * n, ["\ud800"] * n, [f"v${i}" for i in range(n)]]  # fmt: skip
        part["id"] = choice[int(rng.integers(0, len(choice)))]
        return f"{split}/ids"
    if kind == "text":
        choice = [[None] * n, ["nan"] * n, [float("nan")] * n, ["\ud800"] * n, "one string", ["a\x00b"] * n, [5] * n, [b"\xff"] * n]
        part["raw_text"] = choice[int(rng.integers(0, len(choice)))]
        return f"{split}/raw_text"
    tokens = part.get("text_bert")
    if kind == "tokens" and isinstance(tokens, np.ndarray) and tokens.ndim == 3 and tokens.size and tokens.dtype.kind in "biuf":
        tokens = part["text_bert"] = part["text_bert"].astype(float)
        row, x = int(rng.integers(0, tokens.shape[1])), float(rng.choice([30522, 1e9, -1, 0.5, 2, np.nan, np.inf, 0]))
        tokens[int(rng.integers(0, len(tokens))), row] = x
        return f"{split}/text_bert row {row} = {x:g}"
    if kind == "lengths":
        name = str(rng.choice(["audio_lengths", "vision_lengths"]))
        x = rng.choice([0, -1, 1e9, np.nan, np.inf, 3.7, 5])
        part[name] = np.full(n, x)
        return f"{split}/{name} = {x:g}"
    if kind == "labels":
        x = rng.choice([3.5, np.nan, np.inf, 0, 1, 1e300])
        part["regression_labels"] = np.full(n, x) if rng.random() < 0.5 else _poked(np.zeros(n), x, rng)
        return f"{split}/labels {x:g}"
    if kind == "key":
        part.pop(key)
        return f"{split} without {key}"
    if kind == "split":
        data[split] = JUNK[int(rng.integers(0, len(JUNK)))] if rng.random() < 0.5 else list(part.values())
        return f"{split} junk"
    if kind == "leak" and all(isinstance(p, dict) for p in data.values()):
        data["test"] = copy.deepcopy(data["train"])
        if rng.random() < 0.5:
            data["test"]["id"] = np.array([f"copy$_${i}" for i in range(len(data["train"]["text"]))])
        return "test is train"
    part[key], done = _array(part[key], rng)
    return f"{split}/{key}:{done}"


def _samples(data: dict[str, Any], rng: np.random.Generator) -> str:
    """Change something in a file of lists of samples: one node of one sample's tree."""
    split = str(rng.choice(list(data)))
    if rng.random() < 0.06 or not isinstance(data[split], list) or not data[split]:
        data[split] = JUNK[int(rng.integers(0, len(JUNK)))]
        return f"{split} junk"
    if rng.random() < 0.06:
        data["test"] = copy.deepcopy(data["train"])
        return "test is train"
    at = int(rng.integers(0, len(data[split])))
    data[split][at], done = _node(data[split][at], rng)
    return f"{split} sample {at} {done}"


def _node(value: Any, rng: np.random.Generator) -> tuple[Any, str]:
    """A tree with one node changed, and its path."""
    if isinstance(value, (list, tuple)) and value and rng.random() < 0.85:
        i = int(rng.integers(0, len(value)))
        if rng.random() < 0.08:
            return type(value)([*value[:i], *value[i + 1 :]]), f"[{i}] gone"
        changed, done = _node(value[i], rng)
        return type(value)([*value[:i], changed, *value[i + 1 :]]), f"[{i}]{done}"
    if isinstance(value, np.ndarray):
        return _array(value, rng)
    junk = [*JUNK, _NESTED, "a\x00b", "x" * 6000, 3.5, np.float32("inf")]
    return junk[int(rng.integers(0, len(junk)))], " junk"


def _cells(table: list[list[str]], rng: np.random.Generator) -> str:
    """Change a table: a cell, a row, a column's name."""
    kind = str(rng.choice(["cell"] * 6 + ["row", "head", "swap", "twice", "gone"]))
    at, column = int(rng.integers(1, len(table))), int(rng.integers(0, 9))
    if kind == "cell":
        choice = ["", "nan", "None", "../../..", "9" * 5000, "a\x00b", "\ud800", "inf", "1e300", "5", "-3.0001", "a/b", "é",
                  "1e-400", "0x1", "١", "train", "TEST", '"', "a\nb", " ", "0", "x" * 200_000]  # fmt: skip
        table[at] = [*table[at], *[""] * 9][: max(len(table[at]), column + 1)]  # a row may be short by now
        table[at][column] = str(choice[int(rng.integers(0, len(choice)))])
        return f"cell {column}"
    if kind == "row":
        table[at] = table[at][:column]
    elif kind == "head":
        table[0][column] = str(rng.choice(["", "x", "text", "label"]))
    elif kind == "swap":
        table[0][column], table[0][0] = table[0][0], table[0][column]
    elif kind == "twice":
        table.insert(at, list(table[at]) or ["x"])
        table[at][-1] = str(rng.choice(["train", "valid", "test"]))
    else:
        del table[at]
    return kind


def _wave(rng: np.random.Generator) -> bytes:
    """A wav file of some width, rate and number of channels."""
    channels, width = int(rng.choice([1, 1, 2])), int(rng.choice([1, 2, 2, 3, 4]))
    rate = int(rng.choice([16000, 16000, 8000, 44100, 48000]))
    body = rng.bytes(300 * channels * width)
    head = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * width, channels * width, 8 * width)
    parts = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(parts)) + parts


def _wave_header(raw: bytes, rng: np.random.Generator) -> tuple[bytes, None, str]:
    """One field of a wav's head replaced, or the sound cut."""
    fields = {"size": (4, 4), "chunk": (16, 4), "format": (20, 2), "channels": (22, 2), "rate": (24, 4), "bytes": (28, 4),
              "align": (32, 2), "bits": (34, 2), "data": (40, 4)}  # fmt: skip
    name = str(rng.choice([*fields, "cut", "float nan"]))
    if name == "cut":
        return raw[: int(rng.integers(0, len(raw)))], None, "cut"
    if name == "float nan":
        body = np.full(300, rng.choice([np.nan, np.inf, 1e30, 0.5]), np.float32).tobytes()
        head = struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
        parts = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(body)) + body
        return b"RIFF" + struct.pack("<I", len(parts)) + parts, None, name
    at, width = fields[name]
    x = int(rng.choice([0, 1, 2, 3, 7, 255, 65535, 16001, 1000003, 2**31 - 1, 2**32 - 1])) & (256**width - 1)
    return raw[:at] + x.to_bytes(width, "little") + raw[at + width :], None, f"{name} = {x}"


def _frames(made: dict[str, Any], rng: np.random.Generator) -> str:
    key = str(rng.choice(list(made)))
    made[key], done = _array(made[key], rng)
    if done in ("cycle", "nested"):  # an archive cannot hold it
        made[key] = np.array("x")
    if rng.random() < 0.15:
        made.pop(key)
        return f"without {key}"
    return f"{key}:{done}"


def _npz(made: dict[str, Any], rng: np.random.Generator) -> bytes:
    """An archive, written member by member: some with other methods, some that inflate."""
    out = io.BytesIO()
    method = int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, value in made.items():
            member = io.BytesIO()
            try:
                np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=True)
            except (ValueError, RecursionError, TypeError):
                member.write(repr(value)[:200].encode("utf-8", "replace"))
            archive.writestr(f"{name}.npy", member.getvalue())
        if rng.random() < 0.02:
            archive.writestr("x.npy", bytes(80 << 20), zipfile.ZIP_DEFLATED)
    return out.getvalue()
