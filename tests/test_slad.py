"""SLaD: the rows of its tables and their switches, waves and features, context, jobs. Encoders: tiny random ones."""

import numpy as np
import pytest
import torch

from bench.data.dataset import load
from bench.errors import BenchError
from bench.experiments import all_experiments, select
from bench.job import build_data, build_model, run
from bench.matrix import Config, Job
from bench.models import slad
from bench.models.base import Inputs
from bench.models.slad import Model
from bench.plan import make_plan
from bench.store import Store
from bench.suites import suite
from bench.train.loop import criterion, predict, step_losses
from bench.train.optim import build_optimiser
from bench.train.protocol import Protocol
from tests.formats import table

pytest.importorskip("transformers")

TINY = {"encoder": "tiny", "audio_encoder": "tiny-audio", "heads": 4, "max_len": 10}
FEATURES = {**TINY, "audio_encoder": "none"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A data folder of MOSI and CH-SIMS, made up, with features in place of sound: 4 videos of 3 clips in a split."""
    top, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    for name, bound in (("mosi", 3.0), ("sims", 1.0)):
        splits = [(s, v, c) for s in ("train", "valid", "test") for v in range(4) for c in range(3)]
        labels = np.round(rng.uniform(-bound, bound, (len(splits), 4)), 1)
        rows = [(f"{s}{v}", c, f"word{v} word{c}", *y, "", s) for (s, v, c), y in zip(splits, labels)]
        (top / name.upper()).mkdir()
        (top / name.upper() / "label.csv").write_text(table(rows))
        np.savez(
            top / name.upper() / "audio_features.npz", id=np.array([f"{r[0]}$_${r[1]}" for r in rows]),
            features=rng.standard_normal((len(rows), 7, 5)).astype(np.float32), lengths=rng.integers(2, 8, len(rows)),
        )
    return top


def parts(dataset="synthetic-sims", data_dir=None, cache=None, **params):
    """(data, model) of a configuration."""
    c = Config(dataset, "audio", "slad", backbone_params={**TINY, "context": 2 * ("mosi" in dataset), **params})
    data = build_data(Job(c, 1111), load(dataset, "audio", data_dir, cache), Model, "cpu")
    return data, build_model(Job(c, 1111), Inputs(**data.inputs()))


CASES = {
    "waves": ("synthetic-sims", {}), "waves with context": ("synthetic-mosi", {}),
    "features": ("sims", FEATURES), "features with context": ("mosi", FEATURES),
}


def case(name, corpus, **params):
    dataset, given = CASES[name]
    return parts(dataset, corpus, corpus / "cache", **{**given, **params})


def two_steps(data, model):
    """Losses stay finite, and every parameter of the groups moves, once in a group."""
    p = Protocol(loss="l1", optimiser="adamw", lr=1e-3)
    optimiser = build_optimiser(model.train(), [], p)
    grouped = [q for g in optimiser.param_groups for q in g["params"]]
    assert {id(q) for q in grouped} == {id(q) for q in model.parameters() if q.requires_grad} and grouped
    before = [q.detach().clone() for q in grouped]
    for rows in torch.arange(10).split(5):
        batch = data.batch("train", rows)
        losses, _ = step_losses(model, None, batch, criterion(p), None)
        losses["total"].backward()
        optimiser.step(), optimiser.zero_grad()
        assert all(v.isfinite() for v in losses.values())
    assert not any(torch.equal(q, b) for q, b in zip(grouped, before))
    return set(losses) - {"task", "total"}


@pytest.mark.parametrize("name", CASES)
def test_two_training_steps_on_waves_and_features(name, corpus):
    data, model = case(name, corpus)
    assert two_steps(data, model) == {"uni_text", "uni_audio", "con", "rep", "ml"}
    assert sum(v for k, v in model.scalars().items() if k.startswith("relation_")) == pytest.approx(1)


@pytest.mark.parametrize("name", CASES)
def test_a_permuted_batch_gives_permuted_outputs_and_evaluation_batches_do_not_matter(name, corpus):
    data, model = case(name, corpus)
    order, model = torch.tensor([3, 0, 5, 1, 4, 2]), model.eval()
    with torch.no_grad():
        straight, permuted = (model(data.batch("test", rows)).prediction for rows in (order.sort().values, order))
        latents = model.encode(data.batch("test", order)).latents
    assert straight.shape == (6,) and straight.std() > 0
    torch.testing.assert_close(permuted, straight[order], rtol=1e-4, atol=1e-5)
    assert {k: tuple(z.shape[1:]) for k, z in latents.items()} == model.latent_dims
    assert (model.eval_batch is None) == ("features" in name)
    if name == "waves":
        found = []
        for model.eval_batch in (16, 7):
            found.append(predict(model, data, "valid"))
        np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_context_is_read_and_its_absence_is_not_its_first_clip(corpus):
    data, model = case("features with context", corpus)
    batch, model = data.batch("test", torch.arange(3)), model.eval()  # without, with one, with two clips before
    assert batch["context_audio_lengths"][0] == 0
    changed = batch | {"context_audio": batch["context_audio"] * 2}
    with torch.no_grad():
        one, two = model(batch).prediction, model(changed).prediction
    assert torch.equal(one[0], two[0]) and not torch.isclose(one[1:], two[1:]).any()


# --- switches --------------------------------------------------------------------------------------------------------

ROWS = {(e, r.variant): c for e in ("slad-t3", "slad-f4", "slad-t4") for r in all_experiments()[e].rows
        for c in r.cells.values() if c.dataset == "sims"}


def test_rows_cover_the_tables():
    assert len(ROWS) == 15 + 24 + 1 and len(set(ROWS.values())) == 14 + 23
    assert {(c.backbone_params["tau"], c.backbone_params["top_k"]) for (e, _), c in ROWS.items() if e == "slad-f4"} == {
        (t, k) for t in (0.1, 0.2, 0.3, 0.4) for k in range(1, 7)
    }


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_row_trains_the_losses_it_names(row, corpus):
    given = ROWS[row].backbone_params
    data, model = parts("sims", corpus, corpus / "cache", **{**given, **FEATURES})
    assert two_steps(data, model) == {"uni_text", "uni_audio", *(k for k in ("con", "rep", "ml") if given[k])}


def test_an_absent_loss_has_no_gradient_and_the_rest_does_not_change(corpus):
    data, full = case("features", corpus)
    batch = data.batch("train", torch.arange(8))
    losses = lambda model: model.eval().aux_losses(batch, model.encode(batch), None)
    whole = losses(full)
    for switch, network in (("con", "invariant"), ("rep", "specific"), ("ml", "invariant")):
        _, without = case("features", corpus, **{switch: False})
        assert torch.equal(without.head[0].weight, full.head[0].weight)  # drawn alike
        found = losses(without)
        assert whole.keys() - found.keys() == {switch} and all(torch.equal(found[k], whole[k]) for k in found)
        grads = torch.autograd.grad(whole[switch], list(getattr(full, network).parameters()), retain_graph=True)
        assert all(g.any() for g in grads)
    _, none = case("features", corpus, con=False, rep=False, ml=False)
    sum(losses(none).values()).backward()
    assert all(q.grad is None for q in none.invariant.parameters()) and none.specific is None
    _, plain = case("features", corpus, omega=False)
    found = losses(plain)
    assert [k for k in whole if not torch.equal(found[k], whole[k])] == ["con", "rep"] and found["con"] > whole["con"]


def test_other_readings_change_what_they_name(corpus):
    data, full = case("features", corpus)
    batch = data.batch("train", torch.arange(8))
    losses = lambda model: model.eval().aux_losses(batch, model.encode(batch), None)
    whole = losses(full)
    expected = {"labels": ("given", {"con", "rep", "ml"}), "repel": ("all", {"rep"}), "items": ("samples", {"ml"}),
                "pairs": ("mean", {"ml"}), "label_scale": ("raw", set()),  # CH-SIMS: the bound is 1
                "margin": (0.0, {"rep"}), "lambda_uni": (2.0, {"uni_text", "uni_audio"})}
    for name, (value, changed) in expected.items():
        found = losses(case("features", corpus, **{name: value})[1])
        assert {k for k in whole if not torch.equal(found[k], whole[k])} == changed, name
    assert torch.equal(whole["uni_text"], (full.encode(batch).side["pseudo_text"] - batch["label_text"]).abs().mean())


@pytest.mark.parametrize(("name", "params", "message"), [
    ("features", {"context": 2}, "these data have no preceding clips; set context to 0"),
    ("features with context", {"context": 1}, "context must be 2 or 0 preceding clips, not 1"),
    ("waves", {"heads": 12}, "attention of width 64 cannot have 12 heads"),
    ("waves", {"audio_encoder": "none"}, "no sound in these data; put a folder 'wav'"),
    ("waves", {"audio_encoder": "tiny"}, "'tiny' encodes text, not audio"),
    ("waves", {"audio_encoder": "/no/such/folder"}, "'/no/such/folder': .*put config.json and weights there"),
    ("features", {"audio_encoder": "tiny-audio"}, "no folder 'wav' beside it; a model with an audio encoder"),
    ("features", {"items": "x"}, "items must be one of 'labels', 'samples'"), ("features", {"tau": 0}, "above 0"),
])
def test_what_does_not_fit_is_one_clear_line(name, params, message, corpus):
    with pytest.raises(BenchError, match=message):
        case(name, corpus, **params)


def test_a_missing_audio_encoder_blocks_its_jobs_before_they_start(tmp_path):
    reasons = {"/no/such/folder": "audio encoder '/no/such/folder': ", "minilm": "'minilm' encodes text, not audio"}
    for encoder, why in reasons.items():
        settings = ["backbone.encoder=tiny", f"backbone.audio_encoder={encoder}"]
        plan = make_plan(select(["slad-t3"]), suite("quick"), Store(tmp_path), settings=settings)
        assert len(plan.blocked) == 14 and {v[: len(why)] for v in plan.blocked.values()} == {why}


# --- jobs ------------------------------------------------------------------------------------------------------------

def test_a_job_run_twice_is_the_same_to_the_byte(tmp_path):
    params = {**ROWS["slad-t3", "omega + L_con + L_rep + L_ml"].backbone_params, **TINY, "max_len": 8}
    train = {"loss": "l1", "optimiser": "adamw", "lr": 1e-3, "batch_size": 8, "max_epochs": 1}
    job = Job(Config("synthetic-sims", "audio", "slad", backbone_params=params, train=train, fraction=0.1), 1111)
    stores = [Store(tmp_path / n) for n in "ab"]
    for store in stores:
        run(job, store)
    names = ("metrics.json", "history.csv")
    one, two = ([(s.folder(job) / n).read_bytes() for n in names] for s in stores)
    assert one == two and b"relation_partial" in one[1] and b"train_rep" in one[1]


def test_under_bf16_pseudo_labels_and_vectors_are_float32_so_that_they_do_not_tie(corpus, monkeypatch):
    data, model = case("features", corpus)
    seen = {}

    def spy(text, audio, *rest):
        seen["vectors"] = text.dtype, audio.dtype
        return slad_losses_contrastive(text, audio, *rest)

    slad_losses_contrastive = slad.slad_losses.contrastive
    monkeypatch.setattr(slad.slad_losses, "contrastive", spy)
    batch = data.batch("train", torch.arange(12))
    with torch.autocast("cpu", torch.bfloat16):
        encoded = model.train().encode(batch)
        model.aux_losses(batch, encoded, None)
    assert seen["vectors"] == (torch.float32, torch.float32)
    for m in ("text", "audio"):
        y = encoded.side[f"pseudo_{m}"]
        assert y.dtype == torch.float32 and len(y.unique()) == 12
        assert not torch.equal(y, y.bfloat16().float())  # more than eight bits of each
