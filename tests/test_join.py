"""One modality replaced by features computed elsewhere."""

import numpy as np
import pytest

from bench.cli import main
from bench.data.dataset import load
from tests.formats import put
from tests.test_data import content


def features(name="audio", ids=True, width=6, change=lambda s, p: None):
    rng, made = np.random.default_rng(1), {}
    for split, part in content().items():
        n = len(part["id"])
        own = {name: rng.standard_normal((n, 4, width), dtype=np.float32), f"{name}_lengths": np.full(n, 3)}
        made[split] = own | ({"id": np.array(part["id"])} if ids else {})
        change(split, made[split])
    return made


@pytest.mark.parametrize("ids", [True, False])
def test_samples_are_matched_by_id_or_by_order(tmp_path, ids):
    def backwards(split, part):
        if ids:
            part.update({k: np.array(v)[::-1] for k, v in part.items()})

    base, given = put(tmp_path / "base.pkl", content()), features(ids=ids, change=backwards)
    other = put(tmp_path / "audio.pkl", given)
    target = tmp_path / "data/MOSI/Processed/unaligned_50.pkl"
    assert main(["data", "convert", str(base), str(target), "--audio-from", str(other)]) == 0
    ds = load("mosi", "unaligned", tmp_path / "data", tmp_path / "cache")
    expected = given["test"]["audio"][::-1] if ids else given["test"]["audio"]
    np.testing.assert_array_equal(ds.splits["test"]["audio"], expected)
    assert (ds.splits["test"]["audio_lengths"] == 3).all()
    np.testing.assert_array_equal(ds.splits["test"]["vision"], content()["test"]["vision"])


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (features("vision"), "train has no 'audio'; expected a dict of splits"),
        (features(change=lambda s, p: p.update(id=np.array([f"x{i}" for i in p["id"]]))), "train lacks 6 of 6 samples"),
        (features(ids=False, change=lambda s, p: p.update(audio=p["audio"][:2])), "train/audio has 2 samples for 6 ids"),
    ],
)
def test_other_samples_are_one_line(tmp_path, capsys, made, line):
    base, other = put(tmp_path / "base.pkl", content()), put(tmp_path / "audio.pkl", made)
    assert main(["data", "convert", str(base), str(tmp_path / "out.pkl"), "--audio-from", str(other)]) == 2
    assert line in capsys.readouterr().err and not (tmp_path / "out.pkl").exists()
