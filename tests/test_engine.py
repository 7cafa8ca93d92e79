"""The engine of a GPU through whole trainings, its graphs emulated (tests/emulated.py): every number and every weight as
eager execution has them."""

import weakref
from dataclasses import replace

import pytest
import torch

from bench import selftest
from bench.matrix import Job
from bench.train import optim
from bench.train.capturable import as_on_gpu
from bench.train.engine import leave_pool
from tests.emulated import Emulated
from tests.golden import SMALLER, cell_config, cells


@pytest.fixture
def as_a_gpu(monkeypatch):
    """Models and optimisers in the form that they have on a GPU."""
    real, assemble = optim.build_optimiser, selftest.assemble

    def assembled(*args):
        parts = assemble(*args)
        as_on_gpu(parts.model)
        return parts

    monkeypatch.setattr(optim, "build_optimiser", lambda *args: real(*args[:4], capturable=True))
    monkeypatch.setattr(selftest, "assemble", assembled)


def both(monkeypatch, config, engine=None):
    """(an eager training, the same by the engine of a GPU)"""
    engine = engine or Emulated()
    job = Job(config, 1111)
    eager = selftest.train(job, "cpu", "eager")
    monkeypatch.setattr(selftest, "choose", lambda *args: engine)
    return eager, selftest.train(job, "cpu", "auto")


def config(backbone, mixer, **train):
    c = cell_config(backbone, mixer).with_(backbone_params=SMALLER.get(backbone, {}), fraction=0.4)
    return c.with_(train={"max_epochs": 4, "patience": 100, **train})


def assert_the_same(eager, graphs):
    assert len(eager.history) == len(graphs.history)
    for a, b in zip(eager.history, graphs.history):
        assert repr(a) == repr(b), {k: (a[k], b.get(k)) for k in a if repr(a[k]) != repr(b.get(k))}
    for k, v in eager.weights.items():
        assert torch.equal(v, graphs.weights[k]), k
    assert selftest.same(eager, graphs)


DAILY = {"lmf": ("none", "msmix", "advmixup", "multimix"), "tfn": ("none",), "self_mm": ("none",), "cpsl": ("none",), "mctn": ("none",)}
DEAR = {"bbfn", "dmd", "kuda", "mmml", "skeafn", "slad"}  # half a minute each: their steps are replayed in test_capture.py, as all are


def every():
    """The daily ones, and of every other backbone that is not dear its last cell."""
    last = dict(cells())
    for backbone, mixer in cells():
        if backbone in DEAR:
            continue
        if mixer in DAILY.get(backbone, ()) or backbone not in DAILY and mixer == last[backbone]:
            yield pytest.param(backbone, mixer, marks=() if backbone in DAILY else pytest.mark.slow, id=f"{backbone}+{mixer}")


@pytest.mark.parametrize(("backbone", "mixer"), list(every()))
def test_a_training_of_graphs_is_the_eager_training(backbone, mixer, as_a_gpu, monkeypatch):
    eager, graphs = both(monkeypatch, config(backbone, mixer))
    assert not graphs.engine.reason
    assert sum(g.replays for g in graphs.engine.captured.values()) > len(graphs.engine.captured)
    assert any(key[0] == "training step" for key in graphs.engine.captured)
    assert_the_same(eager, graphs)


@pytest.mark.parametrize("train", [
    {"accumulate": 2}, {"accumulate": 3, "drop_remainder": True}, {"clip_value": 0.01}, {"clip_norm": 0.1, "accumulate": 2},
    {"scheduler": "warmup-linear", "warmup": 0.2}, {"scheduler": "plateau", "scheduler_patience": 0}, {"drop_last": True},
    {"reset_optimiser": True, "scheduler": "step", "milestones": [2, 4]}, {"optimiser": "adamw", "weight_decay": 0.1},
], ids=lambda t: "+".join(t))
def test_whatever_the_protocol_does_between_steps(train, as_a_gpu, monkeypatch):
    eager, graphs = both(monkeypatch, config("lmf", "manifold", **train))
    assert not graphs.engine.reason and len(graphs.engine.captured) > 1
    assert_the_same(eager, graphs)


@pytest.mark.parametrize("changes", [
    {"mixer_params": {"p_mix": 0.5}}, {"mixer_params": {"start_epoch": 3}}, {"corruption": {"kind": "missing", "rate": 0.4}},
    {"backbone_params": {"text_state": "valid"}},
], ids=lambda c: str(next(iter(c.values()))))
def test_what_changes_from_step_to_step(changes, as_a_gpu, monkeypatch):
    """Clean and mixed steps, a mixer that starts late, corruption drawn anew every epoch, texts cut at a batch's longest."""
    mixer = "multimix" if "mixer_params" in changes else "none"
    c = config("lmf", mixer)
    params = {**c.backbone_params, **changes.get("backbone_params", {})}
    c = replace(c, **{**changes, "backbone_params": params}, train={**c.train, "max_epochs": 8})
    eager, graphs = both(monkeypatch, c)
    assert not graphs.engine.reason
    assert_the_same(eager, graphs)


@pytest.mark.parametrize("refused", ["training step", "validation batch"])
def test_what_cannot_be_captured_runs_eagerly_and_says_why(refused, as_a_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    eager, graphs = both(monkeypatch, config("lmf", "msmix", accumulate=2), Emulated((refused,)))
    assert graphs.engine.reason == f"{refused} cannot be captured: RuntimeError: operation not permitted when stream is capturing"
    assert graphs.engine.facts() == {"engine": "eager", "engine_reason": graphs.engine.reason, "graphs": 0}
    assert bool(graphs.engine.made) == (refused == "validation batch"), "what was captured before is given up"
    assert_the_same(eager, graphs)


@pytest.mark.parametrize("often", [1, 2])
def test_a_capture_that_runs_out_of_memory_is_tried_again_once(often, as_a_gpu, monkeypatch):
    """In a capture torch gives back no memory of jobs that have ended; between two it does."""
    emptied = []

    class Full(Emulated):
        refusals = 0

        def _capture(self, work, generators):
            if len(self.made) >= 2 and self.refusals < often:
                self.refusals += 1
                for recording in self.made:
                    recording.spoiled = True
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return super()._capture(work, generators)

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    eager, graphs = both(monkeypatch, config("lmf", "msmix"), Full())
    engine = graphs.engine
    assert emptied == [1] and engine.refusals == often
    assert bool(engine.captured) == (often == 1) and bool(engine.reason) == (often == 2)
    assert_the_same(eager, graphs)


def test_what_a_refused_capture_held_is_free_before_the_work_runs_again(monkeypatch):
    """Else a model that just fits would not."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    engine, alive = Emulated(("piece",)), []

    class Big:
        pass

    def work():
        alive.append([r() is not None for r in held])
        big = Big()
        held.append(weakref.ref(big))
        if engine.capturing:
            raise RuntimeError("operation not permitted when stream is capturing")

    def capture(work, generators):
        engine.capturing = True
        try:
            work()
        finally:
            engine.capturing = False

    held = []
    engine.capturing, engine._capture = False, capture
    assert not any(engine.run(("piece",), work) for _ in range(2)) and engine.reason
    assert alive == [[], [False], [False, False]]


def test_a_time_limit_that_strikes_in_a_capture_ends_the_job(as_a_gpu, monkeypatch):
    """It is no refusal, after which the job would run on without a limit."""
    from bench.job import JobTimeout

    class Struck(Emulated):
        def _capture(self, work, generators):
            raise JobTimeout("ran past --timeout 1 s")

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    engine = Struck()
    engine.drawing = [Drawn()]
    with pytest.raises(JobTimeout, match="ran past --timeout 1 s"):
        both(monkeypatch, config("lmf", "none"), engine)
    assert engine.drawing[0].given is not None, "other jobs go on drawing from it"


class Allocator:
    """torch._C's pools of captures: entered by a capture, left by its end or by hand; a version's name for leaving."""

    def __init__(self, name):
        self.holds, self.users = {(0, 7)}, {(0, 7): 1}
        setattr(self, name, self._end)

    def _end(self, device, pool):
        if pool not in self.holds:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.holds.remove(pool)

    def _cuda_releasePool(self, device, pool):
        self.users[pool] -= 1


@pytest.mark.parametrize("name", ["_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"])
def test_a_capture_that_could_not_be_ended_gives_its_pool_back_once(name, monkeypatch):
    allocator = Allocator(name)
    monkeypatch.setattr(torch, "_C", allocator)
    leave_pool(0, (0, 7))
    assert not allocator.holds and allocator.users == {(0, 7): 0}
    leave_pool(0, (0, 7))  # `capture_end` came as far as that: the graph gives it back itself
    assert allocator.users == {(0, 7): 0}


def test_weights_are_read_outside_of_the_engine_when_the_device_has_made_them(as_a_gpu, monkeypatch):
    """The streams of engines wait for no other, nor does another wait for them."""
    found = []
    monkeypatch.setattr(Emulated, "finish", lambda self: found.append(len(self.captured)))
    both(monkeypatch, config("lmf", "none"))
    assert len(found) == 1 and found[0]


def test_jobs_in_company_replay_their_own_graphs_and_draws(tmp_path, monkeypatch):
    """Three jobs that take turns in one process, each by graphs of its own: byte for byte what each gives alone, eagerly."""
    from bench import job as jobs
    from bench.launch.company import Company, Member
    from bench.store import Store
    from tests.test_job import files, job

    wanted = [job("lmf", "msmix", max_epochs=4), job("self_mm", "none", max_epochs=4), job("lmf", "advmixup", max_epochs=4, seed=1112)]
    alone, together = Store(tmp_path / "alone"), Store(tmp_path / "together")
    for j in wanted:
        jobs.run(j, alone)
    engines, failed = [], []
    monkeypatch.setattr(jobs, "choose", lambda *args: engines.append(Emulated()) or engines[-1])
    waiting = [
        Member(j.id, jobs.running(j, together), torch.device("cpu"), lambda result, error: failed.append(error) if error else None)
        for j in wanted
    ]
    Company(lambda: waiting.pop(0) if waiting else None, 3).run()
    assert not failed and len(engines) == 3 and all(e.captured and not e.reason for e in engines)
    for j in wanted:
        assert files(alone, j) == files(together, j)


def test_a_recording_overwrites_what_it_made_and_reads_what_is_there_now():
    """The emulation itself: a sum over a tensor that changes, kept by a reference from the capture."""
    from tests.emulated import Recording

    x, kept = torch.ones(3), []
    recording = Recording(lambda: kept.append((2 * x).sum()))
    recording.replay()
    assert kept[0] == 6
    x.add_(1)
    recording.replay()
    assert len(kept) == 1 and kept[0] == 12


def test_a_tensor_of_the_last_step_that_python_carries_to_the_next_is_found(as_a_gpu, monkeypatch):
    """What the emulation is for: a model that keeps a tensor made in one step for the next, under another name."""
    from bench.models import lmf

    encode = lmf.Model.encode

    def forgetful(self, batch):
        found = encode(self, batch)
        if self.training:
            before = getattr(self, "_before", 0.0)
            self._before = found.latents["text"].detach().mean()
            found.latents["text"] = found.latents["text"] + before
        return found

    monkeypatch.setattr(lmf.Model, "encode", forgetful)
    eager, graphs = both(monkeypatch, config("lmf", "none"))
    with pytest.raises(AssertionError):
        assert_the_same(eager, graphs)


class Drawn:
    """A generator of a GPU, as far as the engine handles one."""

    device = "cpu"

    def __init__(self):
        self.state, self.given = torch.Generator().manual_seed(3), None

    def get_state(self):
        return self.state.get_state()

    def graphsafe_set_state(self, other):
        self.given = other.get_state()


def test_a_refused_capture_leaves_no_generator_in_it(as_a_gpu, monkeypatch):
    """On a GPU the state of a generator that took part in a capture which failed cannot be drawn from again."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    engine = Emulated(("training step",))
    engine.drawing = [Drawn(), Drawn()]
    both(monkeypatch, config("lmf", "none"), engine)
    assert engine.reason and all(torch.equal(g.given, g.get_state()) for g in engine.drawing)
    well = Emulated()
    well.drawing = [Drawn()]
    both(monkeypatch, config("lmf", "none"), well)
    assert not well.reason and well.drawing[0].given is None
