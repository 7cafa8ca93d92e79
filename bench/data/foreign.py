"""What a file is that is no feature file of the kind expected: told from its first bytes, with what to do about it."""

import zipfile
from pathlib import Path

_ARCHIVES = {
    b"\x1f\x8b": "a gzip archive; unpack it (gunzip)",
    b"BZh": "a bzip2 archive; unpack it (bunzip2)",
    b"\xfd7zXZ\x00": "an xz archive; unpack it (unxz)",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!": "a rar archive; unpack it",
    b"\x89HDF": "an HDF5 file (a computational sequence of the CMU SDK?); `bench data convert` puts one into an M-SENA file",
    b"\x93NUMPY": "a single numpy array (.npy); feature files are pickles of many",
    b"RIFF": "a wav file",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run `git lfs pull`",
}
_CALLS = {
    "torch": "holds PyTorch tensors; turn them into numpy arrays and pickle those",
    "joblib": "was written by joblib; read it with joblib.load and write it with pickle.dump",
    "pandas": "holds pandas objects; turn them into numpy arrays and pickle those",
    "sklearn": "holds scikit-learn objects; keep the arrays only",
}


def named(module: str, name: str) -> str:
    """Why a pickle that names a function or class is refused."""
    only = "only numpy arrays, plain containers and primitives are read"
    what = _CALLS.get(module.split(".")[0])
    return f"the pickle names {module}.{name}; {only}" + (f" (it {what})" if what else "")


def kind(path: Path) -> str:
    """What a file is that no reader of pickles could read, and what to do; "" for a damaged pickle."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if not head:
        return "not a pickle (it is empty); download it again"
    for magic, what in _ARCHIVES.items():
        if head.startswith(magic):
            return f"not a pickle: it is {what}"
    if head.startswith(b"PK"):
        return f"not a pickle: it is {_zip(path)}"
    if head.lstrip()[:1] == b"<":
        return f"not a pickle (it starts with {head[:24]!r}): a web page, saved in place of the file; download it again"
    if _crlf(path, head):
        return "its line ends were changed (CRLF): it was copied as text; copy it again as binary"
    if head.startswith(b"\x80"):  # how every pickle since protocol 2 starts
        return ""
    return f"not a pickle (it starts with {head[:24]!r}); download it again"


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged archive may raise anything
        return "a damaged zip archive; download it again"
    if any(n.endswith("data.pkl") for n in names):
        return "a file of PyTorch; load it with torch.load, turn tensors into numpy arrays and pickle those"
    if names and all(n.endswith(".npy") for n in names):
        return "a numpy archive (.npz); `bench data convert` reads packs of words"
    return "a zip archive; unpack it"


def _crlf(path: Path, head: bytes) -> bool:
    """Whether every line feed follows a carriage return, and there are many: no pickle is like that by itself."""
    with open(path, "rb") as file:
        sample = file.read(1 << 20)
    ends = sample.count(b"\n")
    text = not head.startswith(b"\x80")
    return ends == sample.count(b"\r\n") and ends >= (2 if text else 8)
