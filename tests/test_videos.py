"""Clips among those of their video: the table, what a model reads of it, and what it must not."""

import numpy as np
import pytest
import torch

from bench import registry
from bench.data.corruption import parse
from bench.data.corruption.corrupted import Corrupted
from bench.data.dataset import load
from bench.data.resident import Resident
from bench.data.videos import table
from bench.models.base import Inputs

SMALL = {"momke": {"d": 8, "depth": 2}, "gcnet": {"hidden": 8}}
IDS = ["a$_$10", "b[2]", "a$_$9", "b[1]", "alone", "a$_$11"]


def model_of(name, data):
    module = registry.load("models", name)
    torch.manual_seed(0)
    return module.Model(module.Params(**SMALL[name]), Inputs(**data.inputs())).eval()


@pytest.fixture(scope="module")
def data():
    return Resident(load("synthetic-mosi", "aligned"), videos=0)


def test_clips_stand_in_the_order_of_their_numbers():
    found = table(IDS)
    assert [r[t].tolist() for r, t in zip(found.rows, found.there)] == [
        [2, 0, 5], [3, 1], [2, 0, 5], [3, 1], [4], [2, 0, 5]
    ]
    assert found.place.tolist() == [1, 1, 0, 0, 0, 2]


def test_of_a_long_video_the_neighbours_are_read():
    found = table([f"v_{i}" for i in range(6)], 3)
    assert found.rows.tolist() == [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [3, 4, 5]]
    assert found.rows.gather(1, found.place[:, None]).flatten().tolist() == list(range(6))


def test_a_batch_holds_each_clips_video(data):
    index = torch.tensor([21, 0])
    batch, plain = data.batch("train", index), data.rows("train", torch.arange(20, 40))
    assert batch["text"].shape[:2] == (2, 20) and batch["utterances"].all()
    assert torch.equal(batch["text"][0], plain["text"]) and torch.equal(batch["labels"][0], plain["label"])
    assert batch["label"].tolist() == data.tensors["train"]["label"][index].tolist()


def test_a_training_fraction_reads_its_own_clips_alone():
    rows = np.array([0, 3, 25])
    part = Resident(load("synthetic-mosi", "aligned"), videos=0, train_index=rows)
    batch = part.batch("train", torch.arange(3))
    assert batch["utterances"].sum(1).tolist() == [2, 2, 1]
    whole = load("synthetic-mosi", "aligned").splits["train"]["label"]
    assert batch["labels"][0, :2].tolist() == whole[rows[:2]].tolist()


@pytest.mark.parametrize("name", SMALL)
def test_predictions_depend_on_the_video_and_on_nothing_else(name, data):
    model = model_of(name, data)
    with torch.no_grad():
        both = model(data.batch("test", torch.tensor([5, 100]))).prediction
        batch = data.batch("test", torch.tensor([5]))
        assert torch.allclose(both[0], model(batch).prediction[0], atol=1e-5)
        assert torch.equal(model(batch | {k: batch[k] * torch.nan for k in ("label", "labels")}).prediction, model(batch).prediction)
        near = batch["text"].clone()
        near[0, 6] = 0
        assert not torch.allclose(model(batch | {"text": near}).prediction, both[:1], atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_masks_are_those_of_every_system_and_what_is_missing_is_not_read(name, data):
    model, corruption = model_of(name, data), parse({"kind": "missing", "rate": 0.5})
    index = torch.arange(30)
    lone = Resident(load("synthetic-mosi", "aligned"))
    other = Corrupted(lone, lone.dataset, corruption, 7, torch.nn.Identity()).batch("valid", index)
    batch = Corrupted(data, data.dataset, corruption, 7, model).batch("valid", index)
    for m in ("text", "audio", "vision"):
        assert torch.equal(batch[f"keep_{m}"].gather(1, batch["place"][:, None]).squeeze(1), other[f"keep_{m}"])
        gone = ~batch[f"keep_{m}"][..., None, None]
        assert gone.any()
        changed = batch | {m: batch[m] + 5 * gone * (batch[m] != 0)}
        with torch.no_grad():
            assert torch.allclose(model(changed).prediction, model(batch).prediction, atol=1e-5)


def test_statistics_standardise_the_clips_own_vectors(data):
    model = model_of("momke", data)
    model.rows_of = lambda rows: data.batch("train", rows)
    model.on_epoch_start(1 - model.preparation)
    batch = data.batch("train", torch.arange(240))
    for u in model.utterances(batch).values():
        own = u[torch.arange(240), batch["place"]]
        assert own.mean(0).abs().max() < 1e-4 and (own.std(0, correction=0) - 1).abs().max() < 1e-3


def test_the_loss_is_the_clips_own_and_the_mean_of_its_neighbours(data):
    model = model_of("momke", data)
    batch = data.batch("train", torch.tensor([3, 45]))
    encoded = model.encode(batch)
    found = model.aux_losses(batch, encoded, model.fuse(encoded.latents))["others"].detach()
    error = (model.fuse(encoded.side).prediction - batch["labels"]).square().detach()
    wanted = sum(torch.cat([e[:p], e[p + 1 :]]).mean() for e, p in zip(error, batch["place"].tolist())) / 2
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    assert torch.allclose(model.fuse(encoded.latents).prediction, model.fuse(encoded.side).prediction[[0, 1], batch["place"]])
