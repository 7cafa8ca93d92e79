"""SLaD's label relations and losses against hand-computed numbers, its audio encoder, and the real labels of CH-SIMS.
Legend: B batch, d width."""

import csv
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.parts import slad_losses
from bench.models.parts.audio_encoder import AudioEncoder, Bins
from bench.train.capturable import host_reads
from tests.test_slad import FEATURES, parts

pytest.importorskip("transformers")


def near(found, *expected):
    expected = torch.tensor(expected, dtype=found.dtype).reshape(found.shape)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


# --- labels and losses, by hand --------------------------------------------------------------------------------------

# R2; R3; opposite signs, zero beside a label, two zeros: R1
Y_TEXT, Y_AUDIO = torch.tensor([0.6, 0.4, 0.4, 0.0, 0.0]), torch.tensor([0.6, 0.8, -0.4, 0.5, 0.0])


def test_label_similarity_by_hand():
    relation = slad_losses.relations(Y_TEXT, Y_AUDIO)
    assert relation.equal.tolist() == [True] + 4 * [False]
    assert relation.partial.tolist() == [False, True, False, False, False]
    assert torch.equal(relation.incompatible, ~(relation.equal | relation.partial))
    # structure 0.1 + 0.8 * 0.4 / 0.8 = 0.5, value exp(-0.16 / (2 * 0.25)) = exp(-0.32)
    omega = slad_losses.label_similarity(Y_TEXT, Y_AUDIO, 0.5)
    near(omega, 1.0, 0.5 * math.exp(-0.32), 0.0, 0.0, 0.0)
    assert torch.equal(omega, slad_losses.label_similarity(Y_AUDIO, Y_TEXT, 0.5))
    y = torch.linspace(-3, 3, 61)
    grid = slad_losses.label_similarity(y.repeat(61), y.repeat_interleave(61), 0.5)
    assert grid.min() == 0 and grid.max() == 1


def test_contrastive_by_hand():
    e = torch.eye(2)
    # S = 2 I; L_pos = log(1 + exp(-2)); lambda = 0.5 sigmoid(2); the one negative gives log(1 + exp(0)) = log 2
    each = math.log1p(math.exp(-2)) + 0.5 / (1 + math.exp(-2)) * math.log(2)
    near(slad_losses.contrastive(e, e, torch.tensor([1.0, 0.5]), 0.5, 3), each * 0.75)
    near(slad_losses.contrastive(e[:1], e[:1], torch.ones(1), 0.5, 3), 0.0)


def test_top_k_are_the_hardest_negatives():
    angle = torch.tensor([0.0, 1.0, 0.3, 2.0, 0.6])  # of audios; the only text that counts looks along 0
    audio = torch.stack([angle.cos(), angle.sin()], 1)
    text, omega = audio.clone(), torch.tensor([1.0, 0, 0, 0, 0])
    found = [5 * float(slad_losses.contrastive(text, audio, omega, 1.0, k)) for k in (1, 2, 3, 9)]
    hard = [math.log1p(math.exp(math.cos(a))) for a in (0.3, 0.6, 1.0, 2.0)]
    scale = 1 / (1 + math.exp(-1))  # every own cosine is 1
    gaps = [scale * (np.mean(hard[:k]) - np.mean(hard[:1])) for k in (2, 3, 4)]
    np.testing.assert_allclose(np.subtract(found[1:], found[0]), gaps, atol=1e-6)


def test_repulsive_by_hand():
    text = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    audio = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # cosines [[1, 0], [0.6, 0.8]]
    omega, tau = torch.tensor([1.0, 0.5]), 0.2
    near(slad_losses.repulsive(text, audio, omega, tau, 0.2), (0 + 0.5 * (0.6 - 0.2) / tau) / 1.5)
    near(slad_losses.repulsive(text, audio, omega, tau, 0.2, own=True), (0.8 / tau + 0.5 * 0.6 / tau) / 1.5)
    near(slad_losses.repulsive(text, audio, torch.zeros(2), tau, 0.2), 0.0)
    near(slad_losses.repulsive(text[:1], audio[:1], omega[:1], tau, 0.2), 0.0)


def test_multi_label_by_hand():
    y_text, y_audio = torch.tensor([0.5, -1.0]), torch.tensor([0.25, -1.0])
    weight, positive = slad_losses.overlap_weights(y_text[:, None], y_audio[:, None])
    near(weight, 0.5 / (1 + 0.25), 0.0, 0.0, 1.0)  # 0 for opposite signs
    assert positive.tolist() == [[1, 0], [0, 1]]
    alike = torch.ones(2, 4) / 2  # all cosines 1: every pair costs the log of the number of others
    # items 0.5, -1, 0.25, -1: weights 0.4 and 1 of the first and third, 1 and 1 of the other two
    near(slad_losses.multi_label(alike, alike, y_text, y_audio, 0.2), 3.4 / 4 * math.log(3))
    near(slad_losses.multi_label(alike, alike, y_text, y_audio, 0.2, mean=True), math.log(3))
    three, y = alike[:1].repeat(3, 1), torch.tensor([0.5, 0.5, -0.5])
    near(slad_losses.multi_label(three, three, y, y, 0.2, paired=True), (2 / 3) * math.log(2))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("paired", [False, True])
def test_losses_and_gradients_are_finite_in_small_batches(size, paired):
    torch.manual_seed(0)
    vectors = torch.randn(2, size, 4, requires_grad=True)
    text, audio = F.normalize(vectors, dim=-1)
    y = torch.tensor([0.0, 0.5, -1.0, 1.0, 0.2])[:size]
    omega = slad_losses.label_similarity(y, -y.abs(), 0.5)
    loss = slad_losses.multi_label(text, audio, y, -y.abs(), 0.1, paired)
    loss = loss + slad_losses.repulsive(text, audio, omega, 0.1, 0)
    loss = loss + slad_losses.contrastive(text, audio, omega, 0.1, 6)
    loss.backward()
    assert loss.isfinite() and vectors.grad.isfinite().all()


def test_bins_by_hand():
    x = torch.tensor([[[1.0], [3.0], [5.0], [9.0], [100.0]]])  # 5 frames, the last one padding
    mean, filled = Bins(5, 2)(x, torch.tensor([[1.0, 1, 1, 1, 0]]))  # frames 0-2 and 2-4
    near(mean, 3.0, 7.0)
    mean, filled = Bins(2, 4)(x[:, :2], torch.tensor([[1.0, 0]]))
    near(mean, 1.0, 1.0, 0.0, 0.0)
    assert filled.tolist() == [[True, True, False, False]]


# --- sound -----------------------------------------------------------------------------------------------------------

def test_padding_of_a_wave_is_not_heard():
    state = torch.get_rng_state()
    encoder = AudioEncoder("tiny-audio").eval()
    assert torch.equal(state, torch.get_rng_state())
    wave, mask = torch.randn(2, 4000), torch.ones(2, 4000, dtype=torch.int64)
    mask[1, 2500:] = 0
    short, long = encoder(wave * mask, mask), encoder(F.pad(wave * mask, (0, 1600)), F.pad(mask, (0, 1600)))
    T = encoder.frames(4000)
    assert short.last.shape == (2, T, 64) and short.mask.sum(1).tolist() == [T, encoder.frames(2500)]
    assert torch.equal(long.mask.sum(1), short.mask.sum(1))
    one, two = (f.last[:, :T] * f.mask[:, :T, None] for f in (short, long))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_a_clip_without_sound_has_no_frame_and_the_front_is_frozen():
    encoder = AudioEncoder("tiny-audio").train()
    found = encoder(torch.zeros(2, 4000), torch.tensor([[0] * 4000, [1] * 300 + [0] * 3700]))
    assert found.last.isfinite().all() and not found.mask.any()
    trained = {n.split(".")[1] for n, q in encoder.named_parameters() if q.requires_grad}
    assert trained == {"feature_projection", "encoder"}
    assert not any(q.requires_grad for q in AudioEncoder("tiny-audio", finetune=False).parameters())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("family", "stable"), [("Data2VecAudio", False), ("Hubert", False), ("Hubert", True)])
def test_an_encoder_from_a_folder_masks_and_drops_nothing_in_training(family, stable, attention, tmp_path):
    """Though its own configuration asks for SpecAugment and layer drop; its states are transformers' own."""
    import transformers

    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
                 conv_kernel=(10, 8), conv_stride=(5, 4), num_conv_pos_embedding_groups=2, conv_pos_kernel_size=3)
    rates = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
    positions = 2 if family == "Data2VecAudio" else 8  # layers of convolutions, or a kernel's width
    config = getattr(transformers, f"{family}Config")(
        **sizes, **rates, num_conv_pos_embeddings=positions, layerdrop=0.5, mask_time_prob=0.5, mask_time_length=2,
        **({"do_stable_layer_norm": True, "feat_extract_norm": "layer"} if stable else {}),
    )
    config._attn_implementation = attention
    whole = getattr(transformers, f"{family}Model")(config).eval()
    whole.save_pretrained(tmp_path)
    encoder = AudioEncoder(str(tmp_path)).train()
    encoder.transformer.config._attn_implementation = attention
    wave, mask = torch.randn(2, 1500), torch.ones(2, 1500, dtype=torch.int64)
    for length in (1500, 700):
        mask[1, length:] = 0
        expected = whole(wave * mask, attention_mask=mask).last_hidden_state
        for _ in range(2):
            torch.testing.assert_close(encoder(wave * mask, mask).last, expected, rtol=1e-4, atol=1e-5)
    assert not host_reads(lambda: encoder(wave * mask, mask).last.sum().backward())
    with pytest.raises(BenchError, match="lacks config.json, weights; put config.json and weights there"):
        AudioEncoder(str(tmp_path / "none"))


# --- real labels -----------------------------------------------------------------------------------------------------

def test_relations_of_the_real_labels_of_ch_sims(shared, tmp_path):
    path = shared / "data" / "sims_labels_text.csv"
    if not path.is_file():
        pytest.skip("needs ../shared/data/sims_labels_text.csv, which is not here")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = {r["id"]: (float(r["label_T"]), float(r["label_A"])) for r in rows}
    names = [r["id"].rsplit("_", 1) for r in rows]
    folder = tmp_path / "SIMS"
    folder.mkdir()
    with (folder / "label.csv").open("w", encoding="utf-8", newline="") as file:
        head = ["video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "mode"]
        kept = ("english", "label", "label_T", "label_A", "label_V", "split")
        csv.writer(file).writerows([head, *([*name, *(r[k] for k in kept)] for name, r in zip(names, rows))])
    features = np.random.default_rng(0).standard_normal((len(rows), 2, 4)).astype(np.float32)  # made up
    np.savez(folder / "audio_features.npz", id=np.array(["$_$".join(n) for n in names]), features=features)
    data, model = parts("sims", tmp_path, tmp_path / "cache", **FEATURES, labels="given")

    train = [labels[i.replace("$_$", "_")] for i in data.dataset.ids("train")]
    kind = lambda t, a: "equal" if t == a != 0 else "partial" if t * a > 0 else "incompatible"
    kinds = [kind(t, a) for t, a in train]
    share = {f"relation_{k}": kinds.count(k) / len(train) for k in ("incompatible", "equal", "partial")}
    assert len(train) == 1368 and min(share.values()) > 0.05
    model.eval(), model.on_epoch_start(1)
    for index in torch.arange(len(train)).split(72):  # 19 batches of one size: means of means are means
        batch = data.batch("train", index)
        with torch.no_grad():
            losses = model.aux_losses(batch, model.encode(batch), None)
        assert all(v.isfinite() and v > 0 for v in losses.values()), losses
    found = model.scalars()
    assert {k: found[k] for k in share} == pytest.approx(share, abs=1e-6)
    structure = {"incompatible": lambda low, high: 0.0, "equal": lambda low, high: 1.0,
                 "partial": lambda low, high: 0.1 + 0.8 * low / high}
    omega = [structure[k](*sorted((abs(t), abs(a)))) * math.exp(-2 * (t - a) ** 2) for k, (t, a) in zip(kinds, train)]
    assert found["omega"] == pytest.approx(np.mean(omega), abs=1e-5)


# --- what the equations come to ----------------------------------------------------------------------------------------

def test_eq_21_as_printed_is_twice_the_loss_and_some_tens_at_batch_16():
    """Summed over 2B items and divided by B, in plain numpy."""
    rng, b, tau = np.random.default_rng(0), 16, 0.2
    y = rng.uniform(-1, 1, 2 * b)
    vectors = rng.standard_normal((2 * b, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    s = vectors @ vectors.T / tau
    printed = 0.0
    for i in range(2 * b):
        others = [k for k in range(2 * b) if k != i]
        total = np.log(np.exp(s[i, others]).sum())
        for j in others:
            if y[i] * y[j] > 0:
                overlap = min(abs(y[i]), abs(y[j]))
                weight = overlap / (abs(y[i]) + 1e-8) / (1 + abs(y[i]) - overlap)
                printed += weight * (total - s[i, j]) / b
    text, audio = (torch.from_numpy(v) for v in np.split(vectors, 2))
    found = slad_losses.multi_label(text, audio, *(torch.from_numpy(v) for v in np.split(y, 2)), tau).item()
    assert printed == pytest.approx(2 * found, rel=1e-6) and 30 < found < 70  # beside three L1 losses below 1.5 each


def test_zero_has_no_sign_and_small_labels_keep_theirs():
    y = torch.tensor([0.0, -0.0, 1e-30, 2e-30, -1e-30, 0.5])[:, None]  # products of the small ones underflow
    weight, positive = slad_losses.overlap_weights(y, y)
    assert positive[:2].sum() == 0 and weight[:2].sum() == 0 and weight[:, :2].sum() == 0
    assert positive[2].tolist() == [0, 0, 1, 1, 0, 1] and positive[4].tolist() == [0, 0, 0, 0, 1, 0]
    relation = slad_losses.relations(y[:, 0], y.flip(0)[:, 0])
    assert relation.incompatible.tolist() == [True, True, False, False, True, True]
    assert slad_losses.relations(torch.zeros(1), torch.ones(1)).incompatible.item()  # Eq. 7: or either is 0
    both = torch.stack([y[:, 0], y[:, 0]], 1)
    assert slad_losses.overlap_weights(both, both)[1][5].tolist() == [0, 0, 1, 1, 0, 1]  # an inner product over C
