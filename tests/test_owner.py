"""One owner per job: with the kernel's lock, and with the record alone where a file system has none."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.launch import litter, owner

ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["flock", "record"])
def lock(request, tmp_path, monkeypatch):
    """The path of a lock, on a file system with flock and on one without."""
    if request.param == "record":
        def none(fd, how):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(owner.fcntl, "flock", none)
        monkeypatch.setattr(owner, "_SETTLE", 0.05)
    return tmp_path / "cell" / ".0123-s1111.lock"


def record(lock, **changes):
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(json.dumps({"host": owner.host(), "pid": os.getpid(), "started": owner.started(os.getpid()), "token": "x"} | changes))


def test_one_owner_at_a_time(lock):
    first = owner.take(lock)
    assert first.mine() and owner.take(lock) is None and owner.holder(lock).startswith(f"process {os.getpid()} on ")
    first.release()
    assert list(lock.parent.iterdir()) == [], "nothing is left behind"
    with owner.take(lock) as second:
        assert second.mine() and not first.mine()


def test_of_many_at_once_exactly_one_becomes_the_owner(lock):
    got, barrier = [], threading.Barrier(8)

    def reach():
        barrier.wait()
        got.append(owner.take(lock))

    threads = [threading.Thread(target=reach) for _ in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert len([g for g in got if g is not None and g.mine()]) == 1
    for g in got:
        if g is not None:
            g.release()


def test_a_dead_process_is_taken_over_a_live_one_and_a_beating_one_elsewhere_are_not(lock):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    record(lock, pid=gone.pid)
    with owner.take(lock) as found:
        assert found.mine()
    record(lock, started="1")  # this process's number, but another process had it then
    with owner.take(lock) as found:
        assert found.mine()
    record(lock, host="elsewhere/boot/ns")
    assert owner.take(lock) is None, "its heartbeat is fresh"
    old = time.time() - owner.DEAD - 5
    os.utime(lock, (old, old))
    with owner.take(lock) as found:
        assert found.mine(), "no heartbeat for long: dead"
    lock.write_text("{half")
    with owner.take(lock) as found:
        assert found.mine()
    assert list(lock.parent.iterdir()) == []


def test_without_flock_a_live_process_of_this_machine_keeps_its_job_without_any_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(owner.fcntl, "flock", lambda fd, how: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
    lock = tmp_path / ".a.lock"
    with owner.take(lock):
        os.utime(lock, (1, 1))
        assert owner.take(lock) is None


def test_the_heartbeat_is_a_fresh_time_stamp_and_an_owner_that_was_replaced_knows(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "BEAT", 0.05)
    lock = tmp_path / ".a.lock"
    mine = owner.take(lock)
    os.utime(lock, (1, 1))
    time.sleep(0.4)
    assert lock.stat().st_mtime > 1e9
    record(lock, token="another")
    assert not mine.mine()
    mine.release()
    assert json.loads(lock.read_text())["token"] == "another", "it is not ours to remove"


def test_a_folder_that_takes_no_lock_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="while locking"):
        owner.take(tmp_path / "file" / ".a.lock")


def test_litter_of_the_dead_is_removed_and_that_of_the_living_is_not(tmp_path):
    cell = tmp_path / "mosi" / "lmf+none"
    for job in ("aa-s1", "bb-s1"):
        (cell / f".{job}.0123.new").mkdir(parents=True)
        (cell / job).mkdir()
        (cell / job / f".metrics.json.{os.getpid()}.tmp").touch()
    (cell / ".cc-s1.old").mkdir()
    (cell / ".cc-s1.old" / "metrics.json").touch()
    (cell / ".aa-s1.lock").touch()
    (tmp_path / "plans").mkdir()
    for name in (f".quick.json.{os.getpid()}.tmp", ".quick.json.4000000.tmp"):
        (tmp_path / "plans" / name).touch()
    with owner.take(cell / ".bb-s1.lock"):
        litter.sweep_results(tmp_path)
        assert {p.name for p in cell.iterdir()} == {"aa-s1", "bb-s1", "cc-s1", ".bb-s1.0123.new", ".bb-s1.lock"}
        assert not list((cell / "aa-s1").iterdir()) and list((cell / "bb-s1").iterdir())
        assert [p.name for p in (tmp_path / "plans").iterdir()] == [f".quick.json.{os.getpid()}.tmp"]
    litter.sweep_results(tmp_path)
    assert {p.name for p in cell.iterdir()} == {"aa-s1", "bb-s1", "cc-s1"}


def test_who_takes_a_dead_owners_place_knows_it(tmp_path):
    lock = tmp_path / ".job.lock"
    with owner.take(lock) as mine:
        assert not mine.inherited
    assert not lock.exists()
    lock.write_text("")  # left by one that was killed, on a disk too full for its name
    with owner.take(lock) as mine:
        assert mine.inherited
