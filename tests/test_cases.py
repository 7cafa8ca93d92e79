"""Small inputs that once hung, ended in a traceback or were read in silence: each is refused in one line, or read with
a counted warning. The files themselves lie in ../shared/cases; their kinds are made here too."""

import re
import shutil
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bench.data.archive import load_npz
from bench.data.dataset import load
from bench.data.unpickle import load_pickle
from bench.data.waves import read_wave
from bench.errors import DataError
from tests.conftest import SHARED
from tests.formats import put, table, word_content, write_wav
from tests.test_data import content

PLACES = {
    "aligned": ("mosi", "aligned", "MOSI/Processed/aligned_50.pkl"),
    "unaligned": ("mosi", "unaligned", "MOSI/Processed/unaligned_50.pkl"),
    "word": ("mosi", "word", "mosi.pkl"),
    "hkt": ("ur_funny", "hkt", "ur_funny.pkl"),
    "npz": ("mosi", "audio", "MOSI/audio_features.npz"),
}
CASES = SHARED / "cases"
ROWS = [
    (f"{split}0000", i, "so good", 0.2 * i, "", "", "", "", split)
    for split, n in (("train", 5), ("valid", 3), ("test", 3)) for i in range(n)
]  # fmt: skip


def expectations() -> dict[str, str]:
    """File -> what its row of the table says of it."""
    if not CASES.is_dir():
        return {}
    rows = re.findall(r"^\| (\d\d-\w+) \|.*\| ([^|]+) \|$", (CASES / "README.md").read_text(encoding="utf-8"), re.M)
    return dict(rows)


@pytest.mark.parametrize(("name", "what"), expectations().items())
def test_a_case_is_refused_in_one_line_or_counted(name, what, tmp_path):
    dataset, features, place = PLACES[name.split("-")[1]]
    target = tmp_path / "data" / place
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(CASES / "bad" / name, target)
    if features == "audio":
        target.with_name("label.csv").write_text(table(ROWS))
    began = time.monotonic()
    warned = " ".join(w for w in what.split('"') if "huge" in w or "all zero" in w)
    refused = any(mark in what for mark in ("hang", "traceback", "empty ids", "text_bert", "UNNOTED"))
    if refused:
        with pytest.raises(DataError) as caught:
            load(dataset, features, tmp_path / "data", tmp_path / "cache")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    else:
        found = " ".join(load(dataset, features, tmp_path / "data", tmp_path / "cache").warnings)
        assert ("beyond 1e+15" in found) == ("huge" in warned)
        assert ("every label is 0" in found) == ("label all zero" in warned)
        assert ("text is zero everywhere" in found) == ("text all zero" in warned)
    assert time.monotonic() - began < 5


# ---------------------------------------------------------------- pickles that ask for more than they are


def shared_lists(n: int) -> bytes:
    """n lists, each holding the one before it twice."""
    out = b"\x80\x02]q\x00"
    for i in range(n):
        out += b"]r" + struct.pack("<I", i + 1) + b"(j" + struct.pack("<I", i) + b"j" + struct.pack("<I", i) + b"e"
    return out + b"."


def reconstructed(dtype: bytes, shape: bytes, data: bytes) -> bytes:
    """An array in the opcodes of protocol 3."""
    return (
        b"\x80\x03cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01" + shape
        + b"cnumpy\ndtype\nX\x02\x00\x00\x00" + dtype + b"\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xff"
        + b"J\xff\xff\xff\xffK\x00tb\x89" + data + b"tb."
    )  # fmt: skip


WIDE = b"(J\xff\xff\xff\x7ft"  # the shape (2147483647,)


@pytest.mark.parametrize(
    ("pickled", "line"),
    [
        (b"\x80\x02]q\x00(h\x00h\x00e.", "contains itself"),
        (shared_lists(25), "shares lists within lists"),
        (shared_lists(2000), "nested deeper than 32"),
        (b"\x80\x02Nr" + struct.pack("<I", 150_000_000) + b".", "memo"),
        (b"\x80\x04N" + b"\x94" * 400_000 + b".", "memo"),
        (b"\x80\x04(" + b"]" * 400_000 + b"l.", "more items"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"abc.", "declares more bytes"),
        (b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"abc.", "declares more bytes"),
        (reconstructed(b"S0", WIDE, b"C\x00"), "zero bytes wide"),
        (reconstructed(b"S1", b"(J\xff\xff\xff\x7fK\x00t", b"C\x00"), "more items"),
        (b"\x80\x02cnumpy\ndtype\n}X\x08\x00\x00\x00__name__K\x01sb.", "sets the state of a function"),
        (b"\x80\x02}q\x00h\x00h\x00s.", "a dict's key is a dict"),
        (b"I" + b"9" * 6000 + b"\n.", "not a pickle"),
    ],
    ids=range(13),
)
def test_a_pickle_gets_no_more_than_its_size_allows(tmp_path, pickled, line):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickled)
    began = time.monotonic()
    with pytest.raises(DataError, match=line) as caught:
        load_pickle(path)
    assert time.monotonic() - began < 5 and len(str(caught.value)) < 300


def test_what_is_shared_honestly_is_read(tmp_path):
    row, word = [0.0] * 20, "good"
    data = {"train": [row] * 40, "words": [word] * 1000, "pair": ((word,), (word,))}
    assert load_pickle(put(tmp_path / "x.pkl", data)) == data


def python2(text: bytes) -> bytes:
    """A string as Python 2's pickles spell it (protocol 2)."""
    return b"U" + bytes([len(text)]) + text


def test_python_2_text_has_the_right_letters(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02]q\x00(" + python2("déjà vu".encode()) + python2(b"plain") + b"e.")
    accented, plain = load_pickle(path)
    assert accented.text == "déjà vu" and plain == "plain"
    data = content()
    data["train"]["raw_text"] = list(data["train"]["raw_text"])
    data["train"]["raw_text"][0] = "MARK"
    target = put(tmp_path / "data/MOSI/Processed/unaligned_50.pkl", data)
    spelt = target.read_bytes().replace(b"\x8c\x04MARK", python2("Über".encode()))
    assert b"\x95" in spelt  # the frame's length has to follow
    at = spelt.index(b"\x95")
    target.write_bytes(spelt[:at] + spelt[at + 9 :])
    assert load("mosi", "unaligned", tmp_path / "data", tmp_path / "cache").raw_text("train")[0] == "Über"


@pytest.mark.parametrize(
    ("head", "line"),
    [
        (b"\x1f\x8b\x08", "a gzip archive; unpack it"), (b"BZh9", "bzip2"), (b"7z\xbc\xaf\x27\x1c", "7z archive"),
        (b"<!DOCTYPE html>", "a web page, saved in place of the file; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself; run `git lfs pull`"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"), (b"", "it is empty"),
    ],
)  # fmt: skip
def test_what_is_no_pickle_is_named(tmp_path, head, line):
    (tmp_path / "x.pkl").write_bytes(head)
    with pytest.raises(DataError, match=re.escape(line)):
        load_pickle(tmp_path / "x.pkl")


def test_archives_and_text_copies_are_named(tmp_path):
    import pickle

    for name, line in (("archive/data.pkl", "a file of PyTorch"), ("mosi.pkl", "a zip archive; unpack it")):
        with zipfile.ZipFile(tmp_path / "x.pkl", "w") as archive:
            archive.writestr(name, b"x")
        with pytest.raises(DataError, match=line):
            load_pickle(tmp_path / "x.pkl")
    plain = pickle.dumps({"a": np.arange(40.0), "b": ["x"] * 9}, protocol=0)
    (tmp_path / "x.pkl").write_bytes(plain.replace(b"\n", b"\r\n"))
    with pytest.raises(DataError, match=r"its line ends were changed \(CRLF\)"):
        load_pickle(tmp_path / "x.pkl")
    (tmp_path / "x.pkl").unlink()
    (tmp_path / "x.pkl").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a regular file"):
        load_pickle(tmp_path / "x.pkl")


# ---------------------------------------------------------------- archives, sound, tables


def archive(path: Path, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("features.npy", content)
    return path


def test_an_archive_that_inflates_beyond_measure_is_refused(tmp_path):
    bomb = archive(tmp_path / "a.npz", bytes(100 << 20))
    assert bomb.stat().st_size < 200_000
    with pytest.raises(DataError, match="inflates to 104,857,600 bytes; refused"):
        load_npz(bomb)
    header = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999,), }".ljust(80) + b"\n"
    with pytest.raises(DataError, match="declares more than it holds"):
        load_npz(archive(tmp_path / "b.npz", header))
    np.savez_compressed(tmp_path / "c.npz", features=np.zeros((50, 100, 8)), id=np.array(["a"]))
    found = load_npz(tmp_path / "c.npz")
    assert found["features"].shape == (50, 100, 8) and found["id"].tolist() == ["a"]


def test_sound_that_no_recording_is(tmp_path):
    path = tmp_path / "x.wav"
    write_wav(path, np.arange(4000, dtype=np.int16))
    whole = path.read_bytes()
    assert len(read_wave(path)) == 4000
    for rate in (0, 2_147_483_647, 1_000_003):
        path.write_bytes(whole[:24] + struct.pack("<I", rate) + whole[28:])
        with pytest.raises(DataError, match=f"x.wav: says that it has a rate of {rate} Hz"):
            read_wave(path)
    path.write_bytes(whole[:500])
    with pytest.raises(DataError, match="x.wav: cut short: 456 of 8,000 bytes of sound"):
        read_wave(path)
    path.write_bytes(whole[:40] + b"\xff\xff\xff\xff" + whole[44:])  # from a pipe: the length was not known
    assert len(read_wave(path)) == 4000
    for target in ("/dev/zero", str(path), "nowhere"):
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(DataError, match="cannot be read"):
            read_wave(path)


@pytest.fixture
def sound(tmp_path):
    """A small folder of a table and wav files."""
    top = tmp_path / "data" / "MOSI"
    for video, clip, *_ in ROWS:
        rng = np.random.default_rng(clip)
        write_wav(top / "wav" / video / f"{clip}.wav", rng.integers(-99, 99, 300).astype(np.int16))
    (top / "label.csv").write_text(table(ROWS))
    return lambda: load("mosi", "audio", tmp_path / "data", tmp_path / "cache")


def test_ids_of_a_table_lead_nowhere(sound, tmp_path):
    path = tmp_path / "data/MOSI/label.csv"
    for name, line in (("../../..", "which is a path"), ("9" * 5000, "an id of 5000 letters"), ("", "no id but ''")):
        path.write_text(table([(name, *ROWS[0][1:]), *ROWS[1:]]))
        with pytest.raises(DataError, match=f"line 2 has .*{line}"):
            sound()


@pytest.mark.parametrize("mark", ["null", "5", "{}", '{"samples"', '{"samples": -3}', '{"samples": 1e99}', "[" * 5000])
def test_the_mark_of_generated_sound_is_checked(sound, tmp_path, mark):
    (tmp_path / "data/MOSI/synthetic.json").write_text(mark)
    with pytest.raises(DataError, match="is not what marks generated sound"):
        sound()


def test_tables_as_spreadsheets_write_them(sound, tmp_path):
    path, labels = tmp_path / "data/MOSI/label.csv", sound().splits["train"]["label"]
    text = path.read_text()
    for spelt in (text.replace(",", ";"), text.replace(",", "\t"), "\ufeff" + text):
        path.write_text(spelt, encoding="utf-8")
        np.testing.assert_array_equal(sound().splits["train"]["label"], labels)
    path.write_text(text, encoding="utf-16")
    np.testing.assert_array_equal(sound().splits["train"]["label"], labels)
    path.write_bytes(text.replace("so good", "我不想嫁给").encode("gbk"))
    with pytest.raises(DataError, match=r"line 2 is not \(it looks like GBK\); save it as UTF-8"):
        sound()
    path.write_text(text.replace("so good", '"so good', 1))
    with pytest.raises(DataError, match="line 2 or after is no line of a table .*a quote that is not closed"):
        sound()


# ---------------------------------------------------------------- values


def test_word_files_say_what_is_wrong_with_a_sample(tmp_path):
    def read(change):
        data = word_content()
        data["train"][0] = change(*data["train"][0])
        put(tmp_path / "data/mosi.pkl", data)
        return load("mosi", "word", tmp_path / "data", tmp_path / "cache")

    for change, line in (
        (lambda inner, y, i: (("so bad", *inner[1:]), y, i), "words that are one string; split it at its blanks"),
        (lambda inner, y, i: ((["so", 3], *inner[1:]), y, i), r"a int \(3\) in place of a text"),
        (lambda inner, y, i: (inner, y, None), "None in place of an id"),
        (lambda inner, y, i: (inner, y, float("nan")), "nan in place of an id"),
        (lambda inner, y, i: (inner, y, "nan"), "no id but 'nan'"),
        (lambda inner, y, i: (inner, y, "a\x00b"), "an id with control characters"),
        (lambda inner, y, i: (inner, None, i), r"what is no number \(None\)"),
    ):
        with pytest.raises(DataError, match=f"train sample 0 .*it has {line}"):
            read(change)
    for value in (1e300, -1e300):
        with pytest.raises(DataError, match=rf"train/visual has 10 values in 1 sample .* of {re.escape(f'{value:g}')} or so, beyond what single precision"):
            read(lambda inner, y, i, value=value: ((inner[0], np.full((2, 5), value), inner[2]), y, i))
