"""Sequences of different lengths: lists of arrays, and computational sequences of the CMU SDK (HDF5)."""

import sys

import numpy as np
import pytest

from bench.cli import main
from bench.data import csd
from bench.data.dataset import load
from bench.data.recognise import recognise
from bench.errors import DataError
from tests.formats import put
from tests.test_data import content

PLACE = "MOSI/Processed/unaligned_50.pkl"


def uneven(n, width=3, seed=0, longest=9):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1 + i % longest, width)).astype(np.float32) for i in range(n)]


def test_a_list_of_different_lengths_is_padded_at_the_end_and_its_lengths_are_kept(tmp_path):
    data = content()
    lists = {s: uneven(len(p["id"]), 2, k) for k, (s, p) in enumerate(data.items())}
    for s, p in data.items():
        p["vision"] = lists[s] if s != "test" else np.array([*lists[s], None], object)[:-1]  # an array of objects is a list
        p.pop("vision_lengths", None)
    ds = load("mosi", "unaligned", put(tmp_path / PLACE, data).parents[2], tmp_path / "cache")
    longest = max(len(r) for rows in lists.values() for r in rows)
    assert f"vision: samples of 1 to {longest} steps, padded with zeros at the end" in ds.warnings
    for s, rows in lists.items():
        found = ds.splits[s]["vision"]
        assert found.shape[1:] == (longest, 2)
        assert ds.splits[s]["vision_lengths"].tolist() == [len(r) for r in rows]
        for i, r in enumerate(rows):
            np.testing.assert_array_equal(found[i, : len(r)], r)
            assert not found[i, len(r) :].any()


def test_one_sample_that_blows_all_others_up_is_refused(tmp_path):
    data = content()
    for p in data.values():
        p["vision"] = [np.ones((2, 2), np.float32) for _ in p["id"]] * 400
        p["id"] = [f"{i}x{k}" for k in range(400) for i in p["id"]]
    data["train"]["vision"][0] = np.ones((200_000, 2), np.float32)
    put(tmp_path / PLACE, data)
    with pytest.raises(DataError, match=r"vision has samples of 2 steps \(median\) and one of 200000: .* cut the longest"):
        load("mosi", "unaligned", tmp_path, tmp_path / "cache")


# --- computational sequences -----------------------------------------------------------------------------------------

@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason="needs h5py, which is optional and not here")


def write(h5py, path, entries, name="COVAREP", change=lambda file: None, **how):
    """A computational sequence as the SDK deploys it."""
    with h5py.File(path, "w") as file:
        root = file.create_group(name)
        for key, features in entries.items():
            group = root.create_group(f"data/{key}")
            group.create_dataset("features", data=features, **how)
            group.create_dataset("intervals", data=np.zeros((len(features), 2)))
        root.create_group("metadata").create_dataset("root name", data=f'"{name}"')
        change(file)
    return path


def clips(mark="[{}]"):
    ids = [i for p in content().values() for i in p["id"]]
    return {f"{i.split('$_$')[0]}{mark.format(i.split('$_$')[1])}": r for i, r in zip(ids, uneven(len(ids), 5))}


@pytest.mark.parametrize("how", [{}, {"compression": "gzip"}])
def test_a_sequence_takes_the_place_of_a_modality(tmp_path, h5py, how):
    entries = clips()
    file, base = write(h5py, tmp_path / "covarep.csd", entries, **how), put(tmp_path / "base.pkl", content())
    target = tmp_path / "data" / PLACE
    assert main(["data", "convert", str(base), str(target), "--audio-from", str(file)]) == 0
    ds = load("mosi", "unaligned", tmp_path / "data", tmp_path / "cache")
    for s, part in content().items():
        for k, i in enumerate(part["id"]):
            expected = entries["{}[{}]".format(*i.split("$_$"))]
            n = int(ds.splits[s]["audio_lengths"][k])
            assert n == len(expected)
            np.testing.assert_array_equal(ds.splits[s]["audio"][k, :n], expected)
            assert not ds.splits[s]["audio"][k, n:].any()
    np.testing.assert_array_equal(ds.splits["test"]["vision"], content()["test"]["vision"])


def test_data_check_says_what_it_is(tmp_path, h5py, capsys):
    write(h5py, tmp_path / "covarep.csd", clips())
    what, todo = recognise(tmp_path / "covarep.csd")
    assert what == f"a computational sequence of the CMU SDK: 'COVAREP', {len(clips())} entries, 5 columns"
    assert "--audio-from" in todo
    write(h5py, tmp_path / "words.csd", {"v[0]": np.array([[b"yes"]])}, "words")
    assert recognise(tmp_path / "words.csd")[0] == "a computational sequence of the CMU SDK: 'words', 1 entry of text"
    main(["data", "check", str(tmp_path), "--quick"])
    assert "covarep.csd" in capsys.readouterr().out


def external(file):
    group = file["COVAREP/data"].create_group("elsewhere[0]")
    group.create_dataset("features", shape=(4, 5), dtype="f4", external=[("/etc/hostname", 0, 80)])


def linked(file):
    import h5py

    file["COVAREP/data"].create_group("other[0]")["features"] = h5py.ExternalLink("other.h5", "/x")


def declared(file):
    file["COVAREP/data"].create_group("much[0]").create_dataset("features", shape=(1 << 28, 5), dtype="f4", chunks=(1 << 10, 5))


def linked_softly(file):
    import h5py

    file["COVAREP/data"]["again[0]"] = h5py.SoftLink("/COVAREP")


@pytest.mark.parametrize(("change", "line"), [
    (external, "'elsewhere[0]' lies in another file; nothing outside is read"),
    (linked, "'other[0]' has no 'features' of its own"),
    (linked_softly, "'again[0]' has no 'features' of its own"),
    (declared, "declares 5.4 GB of features, far more than the file is large"),
    (lambda f: f["COVAREP/data"].create_group("flat[0]").create_dataset("features", data=np.ones(3)), "has 1 axes"),
    (lambda f: f["COVAREP/data"].create_group("wide[0]").create_dataset("features", data=np.ones((2, 9))), "columns; expected one width"),
    (lambda f: f["COVAREP/data"].create_group("text[0]").create_dataset("features", data=np.array([[b"a"] * 5])), "holds text, not numbers"),
    (lambda f: f.create_group("second/data"), "no computational sequence (one group with 'data' in it)"),
])
def test_what_a_sequence_may_not_hold_is_one_line(tmp_path, h5py, change, line):
    file = write(h5py, tmp_path / "bad.csd", clips(), change=change)
    with pytest.raises(DataError) as caught:
        csd.read(file)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_other_clips_whole_videos_and_broken_files_are_one_line(tmp_path, h5py, capsys):
    base = put(tmp_path / "base.pkl", content())
    run = lambda file: main(["data", "convert", str(base), str(tmp_path / "out.pkl"), "--audio-from", str(file)])
    lacking = clips()
    lacking.pop(next(iter(lacking)))
    assert run(write(h5py, tmp_path / "a.csd", lacking)) == 2
    assert "lacks 1 of 6 samples of train" in capsys.readouterr().err
    videos = {i.split("$_$")[0] for p in content().values() for i in p["id"]}
    assert run(write(h5py, tmp_path / "b.csd", {v: np.ones((4, 5)) for v in videos})) == 2
    assert "its entries are whole videos; align it to the labels first" in capsys.readouterr().err
    whole = write(h5py, tmp_path / "c.csd", clips()).read_bytes()
    (tmp_path / "c.csd").write_bytes(whole[: len(whole) // 2])
    assert run(tmp_path / "c.csd") == 2
    assert "truncated or damaged, or no HDF5 file" in capsys.readouterr().err


def test_without_h5py_there_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "x.csd").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(DataError, match="an HDF5 file, which h5py reads, and that is not installed: pip install h5py"):
        csd.read(tmp_path / "x.csd")
    assert recognise(tmp_path / "x.csd") == ("an HDF5 file", "an HDF5 file, which h5py reads, and that is not installed: pip install h5py")
