"""What lets the parity tests run on another device changes no number."""

import pytest
import torch
from torch import nn

from tests import on_device


@pytest.mark.parametrize("draw", [
    lambda g: torch.randn(3, 2, generator=g), lambda g: torch.randperm(9, generator=g), lambda g: torch.zeros(4).normal_(generator=g),
    lambda g: torch.bernoulli(torch.full((9,), 0.5), generator=g), lambda g: torch.full((9,), 0.5).exponential_(2.0, generator=g),
], ids=["randn", "randperm", "normal_", "bernoulli", "exponential_"])
def test_draws_of_the_host_are_the_same_on_a_device(draw):
    plain = draw(torch.Generator().manual_seed(3))
    with on_device.HostDraws("cpu"):
        assert torch.equal(draw(torch.Generator().manual_seed(3)), plain)


def test_draws_of_the_host_are_made_there_and_put_on_the_device():
    g, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    torch.randn(3, generator=other)
    with torch.device("meta"), on_device.HostDraws("meta"):
        assert torch.randn(3, generator=g).device.type == "meta"
    assert torch.equal(g.get_state(), other.get_state())  # a draw that is made on meta takes nothing


def test_recurrent_layers_run_as_in_training_where_gradients_are_on():
    seen = []

    class Watched(nn.GRU):
        def forward(self, *args, **kwargs):
            seen.append(self.training)
            return super().forward(*args, **kwargs)

    x, layer = torch.ones(2, 5, 3), Watched(3, 4, batch_first=True).eval()
    plain = layer(x)[0]
    on_device.differentiable(Watched)
    assert torch.equal(layer(x)[0], plain) and not layer.training
    with torch.no_grad():
        layer(x)
    layer.dropout = 0.5
    layer(x)
    assert seen == [False, True, False, False]


def test_a_device_has_more_room_than_the_host_and_less_than_products_of_ten_bits_need():
    assert on_device.loose(1e-5, "cpu") == 1e-5 < on_device.loose(1e-5, "cuda") < 1e-3
