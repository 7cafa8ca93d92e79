"""Jobs in one process: each gives the numbers that it gives alone."""

import numpy as np
import pytest
import torch

from bench.errors import BenchError
from bench.job import JobTimeout, run, running
from bench.launch import company
from bench.launch.company import MOST, Admission, Company, Member
from bench.launch.local import SEATS
from bench.launch.process import Worker
from bench.launch.worker import AGAIN, Task
from bench.store import Store
from bench.train.engine import Eager
from tests.test_job import files, job

JOBS = [job("lmf", "msmix", max_epochs=2), job("tfn", "none", max_epochs=2), job("lmf", "advmixup", max_epochs=2, seed=1112)]


def test_a_job_in_company_gives_the_numbers_that_it_gives_alone(tmp_path):
    """Dropout, batch statistics, mixing draws and all: byte for byte, whoever takes turns with it."""
    alone, together = Store(tmp_path / "alone"), Store(tmp_path / "together")
    for j in JOBS:
        run(j, alone)
    waiting, ended, most = list(JOBS), [], []
    state = torch.get_rng_state()

    def more():
        most.append(len(company.members))
        if not waiting:
            return None
        j = waiting.pop(0)
        return Member(j.id, running(j, together), torch.device("cpu"), lambda result, error: ended.append((j.id, error)))

    company = Company(more, 2)
    company.run()
    assert torch.equal(state, torch.get_rng_state())
    assert sorted(ended) == sorted((j.id, None) for j in JOBS) and max(most) == 1
    for j in JOBS:
        assert files(alone, j) == files(together, j)
        a, b = (np.load(s.folder(j) / "predictions.npz") for s in (alone, together))
        assert all(np.array_equal(a[k], b[k]) for k in a)


def test_one_members_failure_is_its_own(tmp_path):
    store, found = Store(tmp_path), {}
    bad, good = job("lmf", "none", lr=1e30, max_epochs=2), job("lmf", "none", max_epochs=1)
    slow = job("lmf", "none", max_epochs=50, patience=50)
    queue = [
        Member(name, running(j, store), torch.device("cpu"), lambda r, e, name=name: found.update({name: e}), deadline)
        for name, j, deadline in (("bad", bad, 1e18), ("slow", slow, 0.0), ("good", good, 1e18))
    ]
    Company(lambda: queue.pop(0) if queue else None, 3).run()
    assert found["good"] is None and "diverged" in str(found["bad"]) and isinstance(found["slow"], JobTimeout)
    assert [store.status(j) for j in (bad, slow, good)] == ["failed", "failed", "done"]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def fill(rate_of, free=2**40, used=2**30):
    """Let jobs in for a minute on a device that gets rate_of(jobs) turns done in a second; how many came in."""
    clock = Clock()
    admission, under_way = Admission(clock), 0
    for _ in range(600):
        clock.now += 0.1
        for _ in range(int(0.1 * rate_of(under_way))):
            admission.turn()
        under_way += admission.another(under_way, free - under_way * used, under_way * used)
    return under_way


def test_a_gpu_takes_as_many_jobs_as_pay():
    assert fill(lambda n: 1000 * n) == MOST  # every job adds its own rate
    assert fill(lambda n: 1000 * min(n, 10)) == 11  # the eleventh adds nothing: it is the last
    assert fill(lambda n: 1000) == Admission.FIRST + 1  # one fills the device; nobody knows before one more than come in at once


def test_a_gpu_takes_as_many_jobs_as_its_memory_holds():
    gib = 2**30
    assert fill(lambda n: 1000 * n, free=8 * gib, used=gib) == 7  # 1.3 of a job's memory stay free before another comes
    assert fill(lambda n: 1000 * n, free=gib, used=gib) == 1


def test_a_gpu_is_offered_as_many_jobs_as_a_process_takes():
    assert SEATS == MOST


def test_a_member_that_waits_has_no_turn_until_what_it_waits_for_is_ready():
    class Fetch:
        asked = 0

        def ready(self):
            self.asked += 1
            return self.asked > 3

    fetch, taken = Fetch(), []

    def turns():
        yield fetch
        taken.append(fetch.asked)
        yield True
        while True:
            yield Fetch()

    member = Member("a", turns(), torch.device("cpu"), lambda result, error: taken.append(error), engine=Eager())
    assert all(member.turn() for _ in range(4)) and not taken
    assert member.turn() and taken == [4] and member.handed
    member.turn()
    member.deadline = 0.0  # one that is over does not wait for anything
    assert not member.turn() and type(taken[1]).__name__ == "JobTimeout"


def test_a_fault_of_the_device_while_a_member_waits_is_met_in_its_turn():
    """There it is recorded as every other fault; outside it would end the process without a word."""
    class Fetch:
        def ready(self):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def turns():
        fetch = Fetch()
        yield fetch
        try:
            fetch.ready()
        except RuntimeError as e:
            return str(e)

    ended = []
    member = Member("a", turns(), torch.device("cpu"), lambda result, error: ended.append((result, error)))
    assert member.turn() and not member.turn()
    assert ended == [("CUDA error: an illegal memory access was encountered", None)]


@pytest.mark.parametrize(("error", "status", "spent"), [
    ("CUDA error: out of memory", AGAIN, False), ("CUDA error: unspecified launch failure", AGAIN, True), ("shapes differ", "failed", False),
])
def test_a_job_that_finds_its_device_full_before_its_first_turn_runs_again_alone(error, status, spent, monkeypatch, tmp_path):
    def full(device):
        raise RuntimeError(error)

    class Line:
        def __init__(self):
            self.said = []

        def send(self, message):
            self.said.append(message)

    monkeypatch.setattr(company, "_Random", full)
    line = Line()
    assert not company._member(line, Task(JOBS[0], str(tmp_path)), "").turn()
    assert [(o.status, o.error, o.spent) for o in line.said] == [(status, f"RuntimeError: {error}", spent)]


def test_what_ended_jobs_held_is_given_back_before_a_job_is_turned_away(monkeypatch):
    """A graph's memory serves no other job, yet counts as taken: without that a long run would end one job at a time."""
    gib, left = 2**30, [Task(j, "") for j in JOBS * 3]

    class Line:
        """A seat: every answer brings the next task."""

        def __init__(self):
            self.waiting = []

        def recv(self):
            if not left:
                raise EOFError
            return left.pop(0)

        def send(self, message):
            pass

    device = {"cached": 0, "emptied": 0}

    def memory():
        used = len(under_way) * gib + device["cached"]
        return 4 * gib - used, used

    def empty():
        device.update(cached=0, emptied=device["emptied"] + 1)

    under_way, most = set(), []

    class Short:
        """Two turns, and its memory stays with the process."""

        handed = True

        def __init__(self, connection):
            self.left = 2
            under_way.add(self)

        def turn(self):
            most.append(len(under_way))
            self.left -= 1
            if not self.left:
                under_way.remove(self)
                device["cached"] += gib
            return bool(self.left)

    monkeypatch.setattr(company, "_LISTEN", 1)
    monkeypatch.setattr(company, "wait", lambda connections, timeout: list(connections))
    monkeypatch.setattr(company, "_member", lambda c, task, device: Short(c))
    monkeypatch.setattr(company, "_memory", memory)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty)
    company.serve([Line() for _ in range(MOST)], "0")
    assert not left and device["emptied"] >= 2
    assert max(most) == 3 and most[-6:].count(1) < 6, "no fewer at the end than in the beginning"


def test_a_company_has_at_least_one_member():
    with pytest.raises(BenchError, match="at least one member"):
        Company(lambda: None, 0)


def test_a_process_serves_several_tasks_at_once_and_ends_with_its_last_connection(tmp_path):
    """The launcher's side of a GPU's process, here on the CPU: two seats, three tasks, one of which fails."""
    jobs = [job("lmf", "msmix", max_epochs=1), job("lmf", "none", lr=1e30, max_epochs=2), job("lmf", "none", max_epochs=1)]
    alone = Store(tmp_path / "alone")
    run(jobs[0], alone)
    store = Store(tmp_path / "together")
    store.root.mkdir()
    first = Worker("", seats=2)
    try:
        first.send(Task(jobs[0], str(store.root)))
        first.others[0].send(Task(jobs[1], str(store.root)))
        second = heard(first.others[0])
        first.others[0].send(Task(jobs[2], str(store.root), timeout=60.0))
        outcomes = [heard(first), second, heard(first.others[0])]
        assert [o.status for o in outcomes] == ["done", "failed", "done"] and "diverged" in outcomes[1].error
        assert files(alone, jobs[0]) == files(store, jobs[0])
    finally:
        for w in (first, *first.others):
            w.connection.close()
        assert first.process.wait(20) == 0


def heard(worker):
    while True:
        outcome = worker.receive()
        if outcome is not None:
            return outcome
