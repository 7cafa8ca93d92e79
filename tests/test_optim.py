"""Schedules, optimiser reset, bf16 and trimmed padding: what changes a training without changing its definition."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, MultiStepLR

from bench.errors import BenchError
from bench.models.base import Inputs
from bench.registry import load
from bench.train import loop, precision
from bench.train.optim import Schedule
from bench.train.protocol import Protocol, from_params
from tests.test_job import job


def optimiser(lr=1.0):
    return torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))], lr=lr)


def rates(p, epochs, updates=1, valid=lambda epoch: 1.0):
    """The rate of every update, epoch after epoch."""
    o, found = optimiser(p.lr), []
    schedule = Schedule(o, p, updates)
    for epoch in range(1, epochs + 1):
        schedule.before_epoch(epoch)
        for _ in range(updates):
            schedule.before_update()
            found.append(o.param_groups[0]["lr"])
        schedule.after_epoch(valid(epoch))
    return found


def torch_rates(make, steps):
    o = optimiser()
    scheduler, found = make(o), []
    for _ in range(steps):
        found.append(o.param_groups[0]["lr"])
        o.step(), scheduler.step()
    return found


def test_step_divides_by_ten_at_each_milestone():
    p = Protocol(lr=1.0, scheduler="step", milestones=(3, 5))
    assert rates(p, 6) == pytest.approx(torch_rates(lambda o: MultiStepLR(o, [2, 4]), 6))  # torch counts from 0


def test_linear_warm_up_is_that_of_transformers():
    transformers = pytest.importorskip("transformers")
    p = Protocol(lr=1.0, scheduler="warmup-linear", warmup=0.25, max_epochs=4)
    wanted = torch_rates(lambda o: transformers.get_linear_schedule_with_warmup(o, 5, 20), 20)
    assert rates(p, 4, updates=5) == pytest.approx(wanted)


def test_cosine_per_update_is_that_of_transformers():
    transformers = pytest.importorskip("transformers")
    p = Protocol(lr=1.0, scheduler="warmup-cosine-step", warmup=0.25, max_epochs=4)
    wanted = torch_rates(lambda o: transformers.get_cosine_schedule_with_warmup(o, 5, 20), 20)
    assert rates(p, 4, updates=5) == pytest.approx(wanted)


def test_cosine_per_epoch_starts_at_rate_zero_and_follows_torchs_cosine():
    p = Protocol(lr=1.0, scheduler="warmup-cosine", warmup=0.2, max_epochs=20)
    found = rates(p, 20)
    assert found[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert found[5:] == pytest.approx(torch_rates(lambda o: CosineAnnealingLR(o, 16), 15))


def test_plateau_waits_one_epoch_more_than_its_patience():
    p = Protocol(lr=1.0, scheduler="plateau", scheduler_patience=2)
    assert rates(p, 6, valid=lambda e: 1.0) == pytest.approx([1, 1, 1, 1, 0.1, 0.1])  # worse in epochs 2, 3 and 4
    assert rates(p, 6, valid=lambda e: 1.0 / e) == pytest.approx([1] * 6)


def test_no_scheduler_keeps_the_rate():
    assert rates(Protocol(lr=0.5), 3) == torch_rates(lambda o: LambdaLR(o, lambda _: 0.5), 3)


def test_reset_forgets_the_moments_and_nothing_else():
    o = optimiser(1e-3)
    o.param_groups[0]["params"][0].grad = torch.ones(3)
    o.step()
    schedule = Schedule(o, Protocol(reset_optimiser=True), 1)
    schedule.before_epoch(2)
    assert all(not v.any() for state in o.state.values() for v in state.values()) and o.param_groups[0]["lr"] == 1e-3
    o.step()
    assert next(iter(o.state.values()))["step"] == 1


@pytest.mark.parametrize(("changes", "words"), [
    ({"scheduler": "cosine"}, "unknown train.scheduler 'cosine'; known: none"),
    ({"loss": "huber"}, "unknown train.loss 'huber'; known: l1, mse, bce"),
    ({"optimiser": "sgd"}, "unknown train.optimiser 'sgd'"),
    ({"scheduler": "step"}, "needs at least one"),
    ({"milestones": [3]}, "go with train.scheduler=step"),
])
def test_unknown_settings_are_refused_in_one_line(changes, words):
    with pytest.raises(BenchError, match=words):
        from_params(Protocol, changes, "the training protocol")


def losses(tmp_path, amp):
    from bench.job import run
    from bench.store import Store

    j = job(max_epochs=1, mixer="none", amp=amp)
    run(j, Store(tmp_path / str(amp)))
    return Store(tmp_path / str(amp)).history(j)["train_total"][0]


def test_amp_trains_in_float32_where_bf16_is_emulated(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "native_bf16", lambda device: False)
    assert losses(tmp_path, True) == losses(tmp_path, False)


def test_amp_rounds_to_bf16_where_the_device_multiplies_it(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "native_bf16", lambda device: True)
    exact, rounded = losses(tmp_path, False), losses(tmp_path, True)
    assert exact != rounded and math.isclose(exact, rounded, rel_tol=0.02)


def test_bf16_counts_as_native_on_matrix_units_alone(monkeypatch):
    monkeypatch.setattr(precision, "_has_amx", lambda: False)
    assert not precision.native_bf16(torch.device("cpu"))
    monkeypatch.setattr(precision, "_has_amx", lambda: True)
    assert precision.native_bf16(torch.device("cpu"))
    for capability, native in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert precision.native_bf16(torch.device("cuda")) is native


def test_checkpointing_recomputes_and_changes_nothing(tmp_path):
    pytest.importorskip("transformers")
    from bench.job import run
    from bench.store import Store

    jobs = [job(backbone="misa", mixer="none", max_epochs=1, **train) for train in ({}, {"checkpointing": True})]
    stores = [Store(tmp_path / str(i)) for i in range(2)]
    for j, store in zip(jobs, stores):
        run(j, store)
    a, b = (store.history(j) for j, store in zip(jobs, stores))
    assert a.equals(b)


def test_checkpointing_without_an_encoder_is_refused(tmp_path):
    from bench.job import run
    from bench.store import Store

    with pytest.raises(BenchError, match="needs a model that fine-tunes an encoder"):
        run(job(mixer="none", checkpointing=True), Store(tmp_path))


@pytest.mark.parametrize("backbone", ["misa", "self_mm"])
def test_stopping_at_the_longest_transcript_changes_no_prediction(backbone):
    """Where `reads_padding` is False, only padding may differ."""
    pytest.importorskip("transformers")
    module = load("models", backbone)
    torch.manual_seed(0)
    inputs = Inputs(text=(20, 0), audio=(6, 5), vision=(6, 4), train_size=8)
    model = module.Model(module.Params(encoder="tiny"), inputs).eval()
    mask = torch.arange(20) < torch.tensor([3, 9, 5])[:, None]
    ids = torch.where(mask, torch.randint(1000, 20000, (3, 20)), 0)
    batch = {
        "text_bert": torch.stack([ids, mask.long(), torch.zeros_like(ids)], 1), "audio": torch.randn(3, 6, 5),
        "vision": torch.randn(3, 6, 4), "audio_lengths": torch.full((3,), 6), "vision_lengths": torch.full((3,), 6),
    }
    assert model.cut_keys == ("text_bert", "context_text_bert")
    trimmed = model(batch | {"text_bert": batch["text_bert"][..., :9]}).prediction
    torch.testing.assert_close(trimmed, model(batch).prediction, rtol=1e-5, atol=1e-6)
    model.reads_padding = True
    assert model.cut_keys == ()
