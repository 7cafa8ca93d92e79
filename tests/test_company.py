"""Jobs in one process: each gives the numbers that it gives alone."""

import numpy as np
import pytest
import torch

from bench.errors import BenchError
from bench.job import JobTimeout, run, running
from bench.launch.company import MOST, Company, Member, members
from bench.store import Store
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


def test_as_many_members_as_memory_and_idle_time_allow():
    gib = 2**30
    assert members(64 * gib, gib, busy=0.2) == 10  # twice what keeps it busy
    assert members(4 * gib, gib, busy=0.2) == 3  # nine tenths of the memory
    assert members(64 * gib, gib, busy=0.95) == 1 and members(64 * gib, gib, busy=0.0) == MOST
    assert members(gib // 2, gib, busy=0.1) == 1
    with pytest.raises(BenchError, match="at least one member"):
        Company(lambda: None, 0)
