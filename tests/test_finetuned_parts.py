"""Parts of the fine-tuned backbones: LSTMs without packing, moments, label memory, mixture of experts."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bench.models.misa import moment_discrepancy
from bench.models.parts.label_memory import LabelMemory
from bench.models.parts.moe import MixtureOfExperts
from bench.models.parts.padded import PaddedBiLSTM, last_step
from bench.models.parts.text import TextBackbone


def test_the_padded_bilstm_is_the_packed_one():
    torch.manual_seed(0)
    x, lengths = torch.randn(5, 12, 3, dtype=torch.float64), torch.tensor([12, 1, 7, 3, 9])
    ours, reference = PaddedBiLSTM(3, 4).double(), nn.LSTM(3, 4, batch_first=True, bidirectional=True).double()
    for name, value in reference.named_parameters():
        side = ours.backward_lstm if name.endswith("_reverse") else ours.forward_lstm
        getattr(side, name.removesuffix("_reverse")).data.copy_(value.data)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    states = ours(a, lengths)
    packed, (last, _) = reference(pack_padded_sequence(b, lengths, batch_first=True, enforce_sorted=False))
    steps, _ = pad_packed_sequence(packed, batch_first=True)
    for mine, theirs in ((states.steps, steps), (states.forward, last[0]), (states.backward, last[1])):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    (states.steps.square().sum() + states.forward.sum() - states.backward.sum()).backward()
    (steps.square().sum() + last[0].sum() - last[1].sum()).backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)


def test_the_last_step_is_the_packed_lstms_last_state():
    torch.manual_seed(0)
    x, lengths, lstm = torch.randn(4, 8, 3), torch.tensor([8, 2, 1, 5]), nn.LSTM(3, 4, batch_first=True)
    _, (last, _) = lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    torch.testing.assert_close(last_step(lstm(x)[0], lengths), last[0])


def test_misa_moment_discrepancy_has_a_gradient_where_it_is_zero():
    x = torch.rand(1, 4, requires_grad=True)  # one row: every central moment is 0
    moment_discrepancy(x, x.detach().clone()).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    y = torch.rand(30, 4)
    assert moment_discrepancy(y, y.flip(0)) < 1e-6 < 0.1 < moment_discrepancy(y, y.square())


def test_self_mm_zero_labels_belong_to_no_centre_unless_asked():
    labels, features = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([[6.0], [2.0], [4.0]])
    for exclude, centre in ((True, 2.0), (False, 4.0)):
        memory = LabelMemory(3, {"fusion": 1, "text": 1}, 3.0, exclude)
        memory.fill(labels)
        memory.start_epoch(1)
        memory.update(torch.arange(3), labels, {"fusion": features, "text": features})
        assert memory.get("positive", "text").item() == centre and memory.get("negative", "text").item() == 4.0


def test_glomo_mixture_of_identical_experts_is_the_expert():
    torch.manual_seed(0)
    mixture, x = MixtureOfExperts(4, 8, 3, 3, 2, 1e-2).eval(), torch.randn(7, 4)
    mixture.w_gate.data.normal_()
    for expert in mixture.experts:
        expert.load_state_dict(mixture.experts[0].state_dict())
    found = mixture(x)
    torch.testing.assert_close(found.value, mixture.experts[0](x))
    assert ((found.gates > 0).sum(1) == 2).all()
    torch.testing.assert_close(found.gates.sum(1), torch.ones(7))


def test_glomo_gates_follow_torchs_random_stream_in_training_only():
    mixture, x = MixtureOfExperts(4, 8, 3, 3, 2, 1e-2), torch.randn(7, 4)
    torch.manual_seed(1)
    one, two = mixture.train()(x).gates, mixture(x).gates
    torch.manual_seed(1)
    assert torch.equal(mixture(x).gates, one) and not torch.equal(one, two)
    noise = torch.randn(7, 3)
    assert torch.equal(mixture(x, noise).gates, mixture(x, noise).gates)
    assert torch.equal(mixture.eval()(x).gates, mixture(x).gates)


def test_glomo_mixture_computes_in_float32_at_least():
    mixture, x = MixtureOfExperts(4, 8, 3, 3, 2, 1e-2), torch.randn(7, 4)
    noise = torch.randn(7, 3)
    single, half = mixture(x, noise).value, mixture(x.bfloat16(), noise).value
    double = mixture.double()(x.double(), noise.double()).value
    assert (single.dtype, half.dtype, double.dtype) == (torch.float32, torch.float32, torch.float64)
    torch.testing.assert_close(double.float(), single)


def test_the_flag_for_an_encoders_pooler_hides_no_models_own_module():
    """A class attribute wins over a module of the same name: MAG and the readout of ITHP have a `pooler`."""
    flag = "with_pooler"
    assert getattr(TextBackbone, flag) is False and not hasattr(TextBackbone, "pooler")
