"""How long jobs will take: by what ran, on this machine, and never by one constant for a new data set."""

import pytest

from bench import calibration, estimate
from bench.calibration import Speed, speed
from bench.matrix import Config, Job
from bench.records import Entry

OWN = Config("mine", "unaligned", "misa", train={"batch_size": 16, "max_epochs": 20})


def entry(c, per_step, other=1.5, rows=640, epochs=10, device="CPU (x86_64)"):
    """What a run left whose steps took `per_step` seconds."""
    steps = epochs * -(-rows // calibration.batch_size(c))
    env = {"train_seconds": per_step * steps, "wall_seconds": per_step * steps + other, "device": device}
    return Entry({"epochs": epochs, "best_epoch": 1, "n": {"train": rows}, "valid": {}, "test": {}}, env=env)


def calibrated(c, *arguments, **more):
    device, s = speed(c, entry(c, *arguments, **more))
    return {device: {s.key: s}}


def expected(c, rows=None, known=None, entries=None, jobs=(), device="cpu"):
    rows = {(c.dataset, c.features): rows} if rows else {}
    return estimate.seconds([Job(c, 1111), *jobs], entries or {}, device, rows, known or {})[c.id]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return tmp_path


def test_a_new_data_set_is_as_long_as_its_file():
    few, many = (expected(OWN, rows=n) for n in (60, 6000))
    assert few < 400 and many == pytest.approx(100 * few)
    small = OWN.with_(dataset="synthetic-mosi")
    assert expected(small.with_(train={"max_epochs": 40})) > 1.8 * expected(small.with_(train={"max_epochs": 20})) - 2


def test_what_ran_elsewhere_on_the_machine_says_how_long_a_step_takes():
    timed = OWN.with_(dataset="mosi")
    known = calibrated(timed, 0.2)
    assert expected(OWN, 3200, known) == pytest.approx(1.5 + 10 * 200 * 0.2), "ten epochs: the runs stopped by themselves"
    shorter = OWN.with_(train={"max_epochs": 2})
    assert expected(shorter, 3200, known) == pytest.approx(1.5 + 2 * 200 * 0.2)
    larger = OWN.with_(train={"batch_size": 32})
    assert expected(larger, 3200, known) == pytest.approx(1.5 + 10 * 100 * 0.2 * 1.5)
    assert expected(OWN, 3200, known, device="gpu") == expected(OWN, 3200, device="gpu"), "a CPU says nothing of a GPU"
    on_gpu = calibrated(timed, 0.01, device="NVIDIA H100")
    assert expected(OWN, 3200, on_gpu, device="gpu") == pytest.approx(1.5 + 10 * 200 * 0.01)


def test_the_nearest_run_counts_and_another_encoder_is_none():
    plain, mixed = OWN.with_(dataset="mosi"), OWN.with_(dataset="mosi", mixer="msmix")
    tiny = OWN.with_(dataset="mosi", backbone_params={"encoder": "tiny"})
    here = OWN.with_(mixer="powmix")
    known = {"CPU": {}}
    for c, per_step in ((plain, 0.2), (mixed, 0.5), (tiny, 9.0), (here, 0.3)):
        known["CPU"].update(next(iter(calibrated(c, per_step, other=0.0).values())))
    assert expected(OWN, 160, known) == pytest.approx(10 * 10 * 0.3), "the same data before the same mixer"
    assert expected(OWN.with_(dataset="other", mixer="msmix"), 160, known) == pytest.approx(10 * 10 * 0.5)


def test_a_slow_machine_is_slow_with_what_has_not_run_there_too():
    lmf = Config("mosi", "unaligned", "lmf", train={"batch_size": 64, "max_epochs": 20})
    usual = estimate.guess(lmf, rows=1284)
    slow = calibrated(lmf, 8 * usual / (20 * 21), other=0.0, rows=1284, epochs=20)
    assert expected(OWN, 3200, slow) == pytest.approx(8 * expected(OWN, 3200), rel=0.05)


def test_runs_of_the_cell_itself_go_before_all_else():
    jobs = [Job(OWN, s) for s in (1112, 1113)]
    entries = {j.id: entry(OWN, per_step, other=0.0) for j, per_step in zip(jobs, (0.1, 0.3))}
    assert expected(OWN, 640, calibrated(OWN, 9.0), entries, jobs) == pytest.approx(10 * 40 * 0.2)


def test_the_calibration_is_kept_and_a_damaged_one_is_none(cache):
    device, s = speed(OWN, entry(OWN, 0.2))
    assert s == Speed("misa", "none", "", "mine", "unaligned", 16, 40, pytest.approx(0.2), pytest.approx(1.5), 10, True)
    calibration.add([(device, s)])
    calibration.add([(device, speed(OWN, entry(OWN, 0.4))[1])])
    assert calibration.read()[device][s.key].seconds_per_step == pytest.approx(0.3)
    assert calibration.read()[device][s.key].runs == 2
    assert expected(OWN, 640, calibration.read()) == pytest.approx(1.5 + 10 * 40 * 0.3)
    path = cache / calibration.NAME
    good = path.read_text()
    for bad in ("", "[1", "[]", '{"format": 1}', good.replace("40", '"forty"'), good.replace("0.3", "NaN"), good.replace('"format": 1', '"format": 9')):
        path.write_text(bad)
        assert calibration.read() == {}, bad[:40]
    calibration.add([(device, s)])
    assert calibration.read()[device][s.key] == s, "begun anew"


@pytest.mark.parametrize("lacking", ["train_seconds", "wall_seconds", "device", "n", "epochs"])
def test_a_run_that_does_not_say_is_left_out(lacking):
    e = entry(OWN, 0.2)
    metrics, env = ({k: v for k, v in d.items() if k != lacking} for d in (e.metrics, e.env))
    assert speed(OWN, Entry(metrics, env=env)) is None
