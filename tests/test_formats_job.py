"""From a job's parameters to what its model reads, and short trainings of the models that read these formats."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from bench import encoders, registry
from bench.data.dataset import load
from bench.data.prepare import for_model
from bench.data.resident import Resident
from bench.errors import BenchError, DataError
from bench.job import build_data, build_model, run
from bench.matrix import Config, Job
from bench.models.base import Backbone, Inputs
from bench.store import Store
from bench.train.loop import step_losses


@dataclass(frozen=True)
class Params:
    encoder: str = "tiny"
    max_len: int | None = None
    audio_encoder: str = "tiny-audio"
    context: bool = True


class Reads(Backbone):
    needs_tokens = True


def test_a_word_models_length_is_its_parameter_and_a_punchlines_the_papers():
    word, hkt = load("synthetic-mosi", "word"), load("synthetic-mustard", "hkt")
    assert for_model(word, Reads, Params()).inputs()["text"] == (50, 0)
    assert for_model(word, Reads, Params(max_len=23)).inputs() == {
        "text": (23, 0), "audio": (23, 74), "vision": (23, 47), "label_bound": 3.0, "train_size": 240, "aligned": True,
    }  # fmt: skip
    assert for_model(hkt, Reads, Params(max_len=23)).inputs()["hcf"] == (77, 4)


def test_what_a_model_of_sound_gets_follows_from_its_parameters():
    ds = load("synthetic-mosi", "audio")
    assert for_model(ds, Reads, Params()).inputs() == {
        "text": (96, 0), "audio": (8000, 1), "vision": (0, 0), "label_bound": 3.0, "train_size": 240, "aligned": False,
        "audio_kind": "wave", "context": True,
    }  # fmt: skip
    assert for_model(ds, Reads, Params(context=False)).inputs()["context"] is False
    assert for_model(ds, Reads, Params(audio_encoder="none")).inputs()["audio_kind"] == "none"  # generated: waves only


def test_a_model_without_an_encoder_cannot_read_words():
    for name, features in (("mosi", "word"), ("mustard", "hkt"), ("mosi", "audio")):
        with pytest.raises(DataError, match=f"a file of format '{features}' has no text features; name a text encoder"):
            for_model(load(f"synthetic-{name}", features), Reads, Params(encoder="none"))
    job = Job(Config("synthetic-mosi", "word", "tfn"), 1111)
    with pytest.raises(DataError, match="format 'word' has no text features"):
        build_data(job, load("synthetic-mosi", "word"), registry.load("models", "tfn").Model, "cpu")


def test_encoder_none_reads_the_frozen_features(tmp_path):
    ds = load("synthetic-mosi", "unaligned")
    cls = registry.load("models", "misa").Model
    for encoder, key in (("none", "text"), ("tiny", "text_bert")):
        job = Job(Config("synthetic-mosi", "unaligned", "misa", backbone_params={"encoder": encoder}), 1111)
        data = build_data(job, ds, cls, "cpu")
        assert {"text", "text_bert"} & set(data.tensors["train"]) == {key}
        model = build_model(job, Inputs(**data.inputs())).eval()
        assert torch.isfinite(model(data.batch("test", torch.arange(4))).prediction).all()


def test_another_vocabulary_never_gets_the_files_ids(monkeypatch, tmp_path):
    """CH-SIMS' tokens are those of bert-base-chinese: an English encoder must not be fed with them."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))  # what is made here is not to be found elsewhere
    ds, made = load("synthetic-sims", "unaligned"), []
    monkeypatch.setattr(encoders, "tokenizer_fingerprint", lambda name: "0")
    tokenise = lambda texts, name, L: made.append((name, L)) or np.full((len(texts), 3, L), 7)
    monkeypatch.setattr(encoders, "tokenise", tokenise)
    job = Job(Config("synthetic-sims", "unaligned", "misa", backbone_params={"encoder": "bert-base-uncased"}), 1111)
    data = build_data(job, ds, registry.load("models", "misa").Model, "cpu")
    assert (data.tensors["train"]["text_bert"] == 7).all() and set(made) == {("bert-base-uncased", 16)}
    same = Job(job.config.with_(backbone_params={"encoder": "chinese-roberta"}), 1111)
    data = build_data(same, ds, registry.load("models", "misa").Model, "cpu")
    np.testing.assert_array_equal(data.tensors["test"]["text_bert"], ds.splits["test"]["text_bert"])


def test_labels_of_single_modalities_are_there_for_who_needs_them(monkeypatch):
    cls = registry.load("models", "misa").Model
    monkeypatch.setattr(cls, "needs_unimodal", True)
    data = lambda name: build_data(
        Job(Config(name, "unaligned", "misa", backbone_params={"encoder": "tiny"}), 1), load(name, "unaligned"), cls,
        "cpu",
    )
    assert {"label_text", "label_audio", "label_vision"} < set(data("synthetic-sims").tensors["train"])
    with pytest.raises(DataError, match="no labels of single modalities"):
        data("synthetic-mosi")


def _models(features: str) -> list[str]:
    """Models of words that can be had: ITHP's family, SAM-LML."""
    found = [n for n in registry.names("models") if registry.load("models", n).Model.needs_words]
    return found if features == "word" else [n for n in found if n == "samlml"]


FILES = (("mosi", "word"), ("mosei", "word"), ("ur_funny", "hkt"), ("mustard", "hkt"))
CELLS = [(n, d, f) for d, f in FILES for n in _models(f)]


@pytest.mark.parametrize(("backbone", "dataset", "features"), CELLS)
def test_two_steps_on_words(backbone, dataset, features):
    c = Config(f"synthetic-{dataset}", features, backbone, backbone_params={"encoder": "tiny"}, fraction=0.2)
    job = Job(c, 1111)
    ds, cls = load(job.config.dataset, features), registry.load("models", backbone).Model
    data = build_data(job, ds, cls, "cpu")
    assert data.size("train") == 48
    model = build_model(job, Inputs(**data.inputs())).train()
    optimiser = torch.optim.Adam([q for q in model.parameters() if q.requires_grad], 1e-3)
    task = torch.nn.functional.binary_cross_entropy_with_logits if ds.spec.binary else torch.nn.functional.mse_loss
    for rows in torch.arange(12).split(6):
        batch = data.batch("train", rows)
        losses, hooks = step_losses(model, None, batch, task, None)
        losses["total"].backward()
        model.after_backward(batch, *hooks)
        optimiser.step()
        optimiser.zero_grad()
        assert all(torch.isfinite(v).all() for v in losses.values())


@pytest.mark.skipif("samlml" not in registry.names("models"), reason="needs the model samlml")
def test_a_job_on_punchlines_runs_to_its_metrics(tmp_path):
    c = Config(
        "synthetic-mustard", "hkt", "samlml", backbone_params={"encoder": "tiny", "d": 20}, fraction=0.2,
        train={"loss": "bce", "max_epochs": 1, "batch_size": 16},
    )  # fmt: skip
    store = Store(tmp_path)
    metrics = run(Job(c, 1111), store)
    assert metrics["n"] == {"train": 48, "valid": 80, "test": 160} and 0 <= metrics["test"]["accuracy"] <= 1
    assert store.predictions(Job(c, 1111))["test_id"][0] == "test0000$_$0"


def test_time_means_are_of_msena_files():
    with pytest.raises(BenchError, match="format 'word' serves models that fine-tune a text encoder"):
        Resident(for_model(load("synthetic-mosi", "word"), Reads, Params()), time_mean=True, tokens=True)
