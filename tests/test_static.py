"""Tables that need no run: complete as printed, with their rows of words, from a clean folder."""

import pytest

from bench.cli import main
from bench.experiments import all_experiments
from bench.experiments.common import config

MARKS = {"tick": "\u2713", "none": "\u2013"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    out = tmp_path_factory.mktemp("static")
    assert main(["report", "powmix-t1", "slad-t4", "samlml-t7", "--results", str(out / "none"), "--out", str(out / "page")]) == 0
    lines = {}
    for name in ("powmix-t1", "slad-t4", "samlml-t7"):
        text = (out / "page" / f"{name}.md").read_text(encoding="utf-8")
        table = [[c.strip() for c in x.strip("|").split("|")] for x in text.splitlines() if x.startswith("|")]
        lines[name] = {row[0]: row[1:] for row in table}
    return lines


def test_properties_of_the_three_models(pages):
    tick, none = MARKS["tick"], MARKS["none"]
    assert pages["powmix-t1"]["MulT"] == [none, "1D-CNN", "CA / Concat", "1"]
    assert pages["powmix-t1"]["MISA"] == [tick, "LSTM", f"{none} / SA + Concat", "4"]
    assert pages["powmix-t1"]["Self-MM"] == [tick, "LSTM", f"{none} / Concat", "4"]


def test_hyperparameters_of_slad(pages):
    t, tick = pages["slad-t4"], MARKS["tick"]
    assert list(t)[2:] == [
        "learning_rate", "batch_size", "optimiser", "epochs", "warm_up", "cosine_annealing", "context",
        "text_context_length", "audio_context_length", "early_stop", "dropout", "alpha", "tau", "top_k", "heads",
    ]
    assert t["optimiser"] == ["AdamW"] * 3 and t["warm_up"] == t["cosine_annealing"] == [tick] * 3
    assert t["context"] == [tick, tick, MARKS["none"]] and t["learning_rate"] == ["5e-6", "5e-6", "1e-5"]


def test_hyperparameters_of_samlml(pages):
    assert pages["samlml-t7"]["loss"] == ["MSE", "MSE", "BCE", "BCE"]
    assert pages["samlml-t7"]["d"] == ["120", "180", "150", "48"]


@pytest.mark.parametrize(("name", "backbone"), [("MulT", "mult"), ("MISA", "misa"), ("Self-MM", "self_mm")])
def test_what_is_stated_of_a_model_is_so(name, backbone):
    import torch
    from torch import nn

    from bench.data.dataset import load
    from bench.job import assemble
    from bench.matrix import Job

    row = next(r for r in all_experiments()["powmix-t1"].rows if r.backbone == name)
    c = config("powmix", backbone, "mosi").with_(dataset="synthetic-mosi", backbone_params=(
        {"encoder": "tiny"} if backbone != "mult" else {}))
    parts = assemble(Job(c, 1111), load(c.dataset, c.features))
    batch = parts.data.batch("train", torch.arange(8))
    encoded = parts.model.encode(batch)
    extra = parts.model.aux_losses(batch, encoded, parts.model.fuse(encoded.latents))
    assert 1 + len(extra) == row.stated["objectives"]
    trained = getattr(parts.model, "text_encoder", None) is not None
    assert trained == (row.stated["ft_bert"] == MARKS["tick"])
    kinds = {type(m) for m in parts.model.modules()}
    assert any(issubclass(k, nn.LSTM) for k in kinds) == (row.stated["backbone"] == "LSTM")
