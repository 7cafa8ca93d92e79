"""The pickle reader: what it reads, and that nothing a file names is ever run."""

import collections
import io
import os
import pickle
import struct

import numpy as np
import pytest

from bench.data.unpickle import load_pickle
from bench.errors import DataError


def _file(tmp_path, content: bytes):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    return path


class _Call:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


ARRAYS = {
    "f4": np.arange(12, dtype=np.float32).reshape(3, 4),
    "f8 big-endian": np.arange(3.0).astype(">f8"),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "transposed": np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(1, 2, 0),
    "strings": np.array(["a", "déjà", ""]),
    "no strings": np.array(["", ""]),
    "bytes": np.array([b"ab", b"c"]),
    "objects": np.array(["a", 1, None, [2.5]], dtype=object),
    "ragged": np.array([np.arange(2), np.arange(3.0)], dtype=object),
    "bool": np.array([[True], [False]]),
    "empty": np.zeros((0, 5), np.float32),
    "0-d": np.array(3.5),
}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol(tmp_path, protocol):
    found = load_pickle(_file(tmp_path, pickle.dumps(ARRAYS, protocol=protocol)))
    for name, array in ARRAYS.items():
        assert isinstance(found[name], np.ndarray), name
        assert found[name].dtype.newbyteorder("=") == array.dtype.newbyteorder("="), name
        if name == "ragged":
            assert [list(a) for a in found[name]] == [list(a) for a in array]
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_every_protocol(tmp_path, protocol):
    plain = {
        "scalars": [np.float32(1.5), np.int64(-3), np.str_("word"), np.str_(""), np.bool_(True)],
        "values": (1, 2.5, None, True, "text", b"raw\xff", b"", {1, 2}, frozenset({3})),
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, a=[1]),
    }
    found = load_pickle(_file(tmp_path, pickle.dumps(plain, protocol=protocol)))
    assert found == plain
    assert [type(v) for v in found["scalars"]] == [type(v) for v in plain["scalars"]]
    assert found["default"]["new"] == []


def test_numpy_1_names(tmp_path):
    written = pickle.dumps(ARRAYS, protocol=2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core" in written
    np.testing.assert_array_equal(load_pickle(_file(tmp_path, written))["f4"], ARRAYS["f4"])


def test_word_table_of_word_level_pickles(tmp_path):
    written = b"ccollections\ndefaultdict\n(c__main__\nreturn_unk\ntR."
    assert load_pickle(_file(tmp_path, written))["unseen"] == 0


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, protocol):
    mark = tmp_path / "mark"
    path = _file(tmp_path, pickle.dumps({"train": _Call(os.system, f"touch {mark}")}, protocol=protocol))
    with pytest.raises(DataError, match=r"x\.pkl: refused, the pickle names posix\.system") as caught:
        load_pickle(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # the file does what it says where nothing stops it
    assert mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"), ("builtins", "getattr"), ("builtins", "__import__"), ("numpy", "load"),
        ("numpy", "memmap"), ("numpy", "fromfile"), ("numpy", "ndarray.tofile"), ("copyreg", "_reconstructor"),
        ("collections", "OrderedDict.fromkeys"), ("torch.storage", "_load_from_bytes"),
    ],
)  # fmt: skip
def test_other_names_are_refused(tmp_path, module, name):
    text = [b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)]
    with pytest.raises(DataError, match=f"refused, the pickle names {module}.{name}; "):
        load_pickle(_file(tmp_path, b"\x80\x04" + b"".join(text) + b"\x93."))


def _array(dtype: bytes, state: bytes, shape: bytes = b"K\x01\x85", data: bytes = b"C\x08AAAAAAAA") -> bytes:
    """Protocol 3 opcodes of an array with a hand-written dtype, dtype state, shape and data."""
    return (
        b"\x80\x03cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01" + shape
        + b"cnumpy\ndtype\n" + dtype + b"\x89\x88\x87R" + state + b"\x89" + data + b"tb."
    )  # fmt: skip


_PLAIN_STATE = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def test_the_hand_written_array_is_valid_as_such(tmp_path):
    content = _array(b"X\x02\x00\x00\x00f8", _PLAIN_STATE, data=b"C\x08" + struct.pack("<d", 2.5))
    assert load_pickle(_file(tmp_path, content)).tolist() == [2.5]
    assert pickle.loads(content).tolist() == [2.5]


@pytest.mark.parametrize(
    "content",
    [
        _array(b"X\x02\x00\x00\x00O8", _PLAIN_STATE),  # an object array laid over raw bytes
        _array(b"X\x03\x00\x00\x00O,O", _PLAIN_STATE),  # structured
        _array(b"X\x02\x00\x00\x00V8", b"(K\x03X\x01\x00\x00\x00|N(X\x01\x00\x00\x00at}K\x08K\x08K\x00tb"),  # by state
        _array(b"X\x02\x00\x00\x00f8", _PLAIN_STATE, shape=b"K\x09\x85"),  # more elements than data
        _array(b"X\x02\x00\x00\x00f8", _PLAIN_STATE, shape=b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86"),  # negative axes
        b"\x80\x03cnumpy\nndarray\n)R.",  # the class itself called
        b"\x80\x03c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
    ],
)
def test_tricks_with_arrays_are_refused(tmp_path, content):
    with pytest.raises(DataError, match="truncated or damaged"):
        load_pickle(_file(tmp_path, content))


def test_missing_truncated_and_foreign_files(tmp_path):
    with pytest.raises(DataError, match=r"absent\.pkl: no such file$"):
        load_pickle(tmp_path / "absent.pkl")
    with pytest.raises(DataError, match="cannot be read"):
        load_pickle(tmp_path)
    whole = pickle.dumps(ARRAYS, protocol=4)
    for cut in (len(whole) // 2, len(whole) - 1):
        with pytest.raises(DataError, match=r"truncated or damaged \(.+\); download it again$"):
            load_pickle(_file(tmp_path, whole[:cut]))
    with pytest.raises(DataError, match=r"not a pickle \(it is empty\)"):
        load_pickle(_file(tmp_path, b""))
    with pytest.raises(DataError, match=r"not a pickle \(it starts with b'<!DOCTYPE html>"):
        load_pickle(_file(tmp_path, b"<!DOCTYPE html><title>Sign in</title>"))
    archive = io.BytesIO()
    np.savez(archive, a=1)
    with pytest.raises(DataError, match="not a pickle"):
        load_pickle(_file(tmp_path, archive.getvalue()))
