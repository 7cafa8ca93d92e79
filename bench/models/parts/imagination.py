"""Parts of MMIN: perceptrons, the encoders of its two kinds of input, the cascade of residual autoencoders.

Legend: B batch, T steps, d width of a modality, D width of the joint embedding, blocks of the cascade i = 1..n.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.parts.lstm import LSTM

KERNELS = (3, 4, 5)  # of the text's convolutions


class Perceptron(nn.Module):
    """[B, d] -> [B, out]: (Lin, ReLU, dropout) of each width, then Lin."""

    def __init__(self, d: int, widths: tuple[int, ...], out: int, dropout: float) -> None:
        super().__init__()
        sizes = (d, *widths)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, widths))
        self.out, self.dropout = nn.Linear(sizes[-1], out), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.dropout(layer(x).relu())
        return self.out(x)


class PeakLSTM(nn.Module):
    """[B, T, d] -> [B, out]: an LSTM's states, their maximum over all steps, padding included."""

    def __init__(self, d: int, out: int) -> None:
        super().__init__()
        self.lstm = LSTM(d, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm.all_states(x).amax(1)


class TextCNN(nn.Module):
    """[B, L, d] -> [B, out]: convolutions over 3, 4 and 5 words, ReLU, their maxima over time side by side, Lin ReLU."""

    def __init__(self, steps: int, d: int, channels: int, out: int) -> None:
        super().__init__()
        if steps < max(KERNELS):
            raise BenchError(f"mmin: the text's convolutions span {max(KERNELS)} steps, and it has {steps}; set inputs=utterance")
        self.convolutions = nn.ModuleList(nn.Conv2d(1, channels, (k, d)) for k in KERNELS)
        self.out = nn.Linear(len(KERNELS) * channels, out)

    def forward(self, x: Tensor) -> Tensor:
        found = [conv(x[:, None]).squeeze(3).relu().amax(2) for conv in self.convolutions]  # (B, channels) each
        return self.out(torch.cat(found, 1)).relu()


class Fusion(nn.Module):
    """The model of complete input: an encoder for each modality, [B, e] each, and a predictor on all of them."""

    def __init__(self, encoders: Mapping[str, nn.Module], predictor: nn.Module) -> None:
        super().__init__()
        self.encoders, self.predictor = nn.ModuleDict(encoders), predictor

    def embed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: encoder(inputs[m]) for m, encoder in self.encoders.items()}

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """(prediction [B, outputs], embeddings)."""
        found = self.embed(inputs)
        return self.predictor(torch.cat(list(found.values()), 1)), found


def _chain(sizes: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    """Lin layers with the activation between them, none behind the last."""
    layers: list[nn.Module] = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])


class Cascade(nn.Module):
    """Residual autoencoders in a row: block i reads x plus all that the blocks before it rebuilt.

        z_i = encoder_i(x_i), y_i = decoder_i(z_i), x_{i+1} = x_i + y_i; imagined = Lin ReLU Lin (x_{n+1})
    """

    def __init__(self, width: int, layers: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        sizes = (width, *layers)
        self.encoders = nn.ModuleList(_chain(sizes, nn.LeakyReLU) for _ in range(blocks))
        self.decoders = nn.ModuleList(_chain(sizes[::-1], nn.ReLU) for _ in range(blocks))
        self.transition = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, D] -> (imagined [B, D], the codes z_i side by side [B, n k])."""
        codes = []
        for encode, decode in zip(self.encoders, self.decoders):
            codes.append(encode(x))
            x = x + decode(codes[-1])
        return self.transition(x), torch.cat(codes, 1)
