"""The GPU's kernels for MulT's towers against torch's operations: on a GPU, or in Triton's interpreter on the CPU."""

import math
import os

import pytest
import torch
from torch.nn import functional as F

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton", reason="triton is not installed; it comes with torch's builds for CUDA")

from bench.models.parts import gpu_kernels, tower_kernels  # noqa: E402
from bench.models.parts.towers import Fold, Towers  # noqa: E402

DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def on_device():
    with DEVICE:
        yield


def causal(T, S, dtype):
    hidden = torch.arange(S) > torch.arange(T)[:, None] + abs(S - T)
    return torch.zeros(T, S, dtype=dtype).masked_fill(hidden, -math.inf)


def attention(q, k, v, heads, mask):
    q, k, v = (x.unflatten(3, (heads, -1)).transpose(2, 3) for x in (q, k, v))
    return ((q @ k.transpose(-1, -2) + mask[:, :, None]).softmax(-1) @ v).transpose(2, 3).flatten(3)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize(("n", "B", "T", "S", "heads", "h", "masks"), [(2, 1, 50, 50, 2, 5, 1), (2, 2, 7, 20, 3, 4, 2)])
def test_attention_and_its_gradients(n, B, T, S, heads, h, masks, dtype, rtol):
    torch.manual_seed(1)
    q, k, v = (torch.randn(n, B, steps, heads * h, dtype=dtype, requires_grad=True) for steps in (T, S, S))
    mask = torch.stack([causal(T, S, dtype)] * masks)[:, None].clone()
    mask[-1, 0, :, -1] = -math.inf  # a tower that is padded behind
    made = tower_kernels.attention(q, k, v, heads, mask, torch.zeros(n), False)
    expected = attention(q, k, v, heads, mask)
    torch.testing.assert_close(made, expected, rtol=0, atol=rtol)
    g = torch.randn_like(expected)
    for a, b in zip(torch.autograd.grad(made, (q, k, v), g), torch.autograd.grad(expected, (q, k, v), g), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=10 * rtol)


def test_dropout_of_weights_and_its_gradient():
    """Each tower's own rate; drawn anew with every call; the backward pass drops what the forward pass dropped."""
    mask, rates = torch.zeros(1, 1, 6, 40), torch.tensor([0.3, 0.1])
    q, v = torch.zeros(2, 4, 6, 2), torch.ones(2, 4, 40, 2)
    torch.manual_seed(2)
    one, two = (tower_kernels.attention(q, v, v, 2, mask, rates, True) for _ in range(2))
    assert not torch.equal(one, two)
    kept = one * torch.tensor([0.7, 0.9])[:, None, None, None] * 40  # how many of 40 weights
    torch.testing.assert_close(kept, kept.round(), rtol=0, atol=1e-4)
    for tower, rate in enumerate(rates.tolist()):
        draws, counts = 4 * 6 * 2, kept[tower]
        assert abs(counts.mean() - 40 * (1 - rate)) < 4 * math.sqrt(40 * rate * (1 - rate) / draws)
        assert counts.var() == pytest.approx(40 * rate * (1 - rate), rel=0.7)

    def seeded(*qkv):
        torch.manual_seed(3)
        return tower_kernels.attention(*qkv, 1, mask[..., :3, :4].double(), rates.double(), True)

    assert torch.autograd.gradcheck(seeded, [torch.randn(2, 1, s, 2, dtype=torch.float64, requires_grad=True) for s in (3, 4, 4)], fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_norm_and_its_gradient(dtype):
    x = torch.randn(2, 3, 7, 50, dtype=dtype, requires_grad=True)
    made, expected, g = tower_kernels.normalise(x), F.layer_norm(x, (50,)), torch.randn_like(x)
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(torch.autograd.grad(made, x, g), torch.autograd.grad(expected, x, g))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_towers_with_and_without_them(cross, training, monkeypatch):
    """Outputs and gradients of a stack; in training with the embedding's dropout, whose draws both share."""
    torch.manual_seed(4)
    towers = Towers(2, 6, 3, 2, embed_dropout=0.2, relu_dropout=0.0, residual_dropout=0.0).double().train(training)
    fold = Fold((0, 1), (5, 5), (8, 7) if cross else (5, 5), (0.0, 0.0), causal=True).double()
    x, source = torch.randn(2, 2, 5, 6).double(), torch.randn(2, 2, 8, 6).double() if cross else None
    last = None if cross else torch.tensor([[4, 2], [3, 4]])

    def run():
        torch.manual_seed(5)
        y = towers(x, fold, source, last)
        return y, *torch.autograd.grad(y.square().sum(), list(towers.parameters()))

    without, calls = run(), []
    monkeypatch.setattr(Towers, "_kernels", lambda self, x: calls.append(x) or tower_kernels)
    for a, b in zip(run(), without, strict=True):
        torch.testing.assert_close(a, b)
    assert calls


def test_they_are_tried_before_use_and_may_be_switched_off(monkeypatch):
    assert gpu_kernels._difference(tower_kernels, DEVICE) < 1e-5
    gpu_kernels.tower_kernels.cache_clear()
    assert gpu_kernels.tower_kernels(DEVICE) == (tower_kernels, "")
    with monkeypatch.context() as at:
        gpu_kernels.tower_kernels.cache_clear()
        at.setattr(tower_kernels, "normalise", lambda x: F.layer_norm(x, x.shape[-1:]) * 1.01)
        kernels, reason = gpu_kernels.tower_kernels(DEVICE)
        assert kernels is None and "differ from torch's operations" in reason
    gpu_kernels.tower_kernels.cache_clear()
    monkeypatch.setenv("BENCH_KERNELS", "0")
    assert gpu_kernels.tower_kernels(DEVICE) == (None, "BENCH_KERNELS is 0")
    gpu_kernels.tower_kernels.cache_clear()
