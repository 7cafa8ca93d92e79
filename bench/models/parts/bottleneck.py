"""What C-MIB, E-MIB and L-MIB share (Mao et al., IEEE TMM 2023): last-step features, Gaussian bottlenecks, their losses.

    x_m = last step of (text: convolution of the encoder's states; audio, vision: convolution and transformer) [B, d]
    bottleneck: e = ReLU(Lin x), mu = Lin e, sigma = softplus(Lin e - 5), z = mu + sigma eps, decoder Lin(d, 1)
    its loss: L1(decoder(z), y) + beta KL,  KL = 1/2 mean over all entries of mu^2 + sigma^2 - 2 log sigma - 1

Quirks of the release kept, with a switch: for most samples the last step is padding (`last_step`); z is sampled in
evaluation (`sample_at_test`). New linear layers start at normal(0, 0.02) with zero bias, as the text encoder's; the
convolutions and the packed attention maps as in torch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.towers import Fold, Towers

MODALITIES = ("text", "audio", "vision")


@dataclass(frozen=True)
class Params:
    """The release's values (global_configs.py and the model files)."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    max_len: int = 50  # word pieces of word-level files
    d: int = 50  # d_l, width of every vector
    hidden: int = 1024  # width inside a bottleneck
    heads: int = 5  # of the audio and vision transformers
    layers: int = 3
    beta: float = 1e-3  # weight of KL
    attn_dropout: float = 0.5
    relu_dropout: float = 0.3
    res_dropout: float = 0.3
    embed_dropout: float = 0.2
    last_step: str = "padded"  # "padded": the step of index -1 is read (release); "valid": the last one of the clip
    sample_at_test: bool = True

    def __post_init__(self) -> None:
        if self.last_step not in ("padded", "valid"):
            raise BenchError(f"last_step is 'padded' or 'valid', not '{self.last_step}'")


class Bottleneck(nn.Module):
    """x [B, d] -> Gaussian code z [B, d], with its decoder."""

    def __init__(self, p: Params) -> None:
        super().__init__()
        self.sample_at_test = p.sample_at_test
        self.encoder = nn.Linear(p.d, p.hidden)
        self.mean, self.spread = nn.Linear(p.hidden, p.d), nn.Linear(p.hidden, p.d)
        self.decoder = nn.Linear(p.d, 1)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """mu, sigma, z, each [B, d]. `noise` [B, d] stands for the draw."""
        e = self.encoder(x).relu()
        mu, sigma = self.mean(e), F.softplus(self.spread(e) - 5)
        if noise is None and not (self.training or self.sample_at_test):
            return mu, sigma, mu
        return mu, sigma, mu + sigma * (torch.randn_like(mu) if noise is None else noise)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z).squeeze(1)  # (B,)


def divergence(mu: Tensor, sigma: Tensor) -> Tensor:
    """Half the mean over batch and features of mu^2 + sigma^2 - 2 log sigma - 1."""
    return 0.5 * (mu.square() + sigma.square() - 2 * sigma.log() - 1).mean()


class Sequence(nn.Module):
    """Audio or vision: convolution, transformer with positions and without mask, one step: [B, T, d_m] -> [B, d]."""

    def __init__(self, steps: int, d_m: int, p: Params) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(d_m, p.d, 3, padding=1, bias=False)
        self.encoder = Towers(
            1, p.d, p.heads, p.layers, embed_dropout=p.embed_dropout, relu_dropout=p.relu_dropout,
            residual_dropout=p.res_dropout, positions=steps,
        )
        self.fold = Fold([0], [steps], [steps], [p.attn_dropout], causal=False)
        for weight in (self.encoder.out_weight, self.encoder.fc1_weight, self.encoder.fc2_weight):
            nn.init.normal_(weight, std=0.02)

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        """last [B] int64: the step that is read."""
        x = self.convolution(x.transpose(1, 2)).transpose(1, 2)  # (B, T, d)
        every = self.encoder(x[None], self.fold)[0]
        return every.gather(1, last[:, None, None].expand(-1, 1, every.shape[2])).squeeze(1)


class BottleneckBackbone(TextBackbone):
    """Base of the three: the last-step vectors x_m [B, d], and the bottlenecks of the modalities where there are any.

    Groups: "encoder" (text encoder and its convolution) and "main". A corruption's noise on U_m acts on x_m
    (`feature_hook`): what it does to the steps that nobody reads has no effect.
    """

    feature_hook = None

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        self.params = p = params
        if p.d % p.heads:
            raise BenchError(f"a width of d={p.d} cannot have {p.heads} heads")
        self.convolution = nn.Conv1d(self.text_width, p.d, 3, padding=1, bias=False)
        self.sequences = nn.ModuleDict({"audio": Sequence(*inputs.audio, p), "vision": Sequence(*inputs.vision, p)})
        self.latent_dims = {m: (p.d,) for m in MODALITIES}

    def initialise(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("text_encoder."):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def last_steps(self, hidden: Hidden, batch: Batch) -> Latents:
        """x_m [B, d]."""
        found = {"text": self._text(hidden)}
        for m, network in self.sequences.items():
            found[m] = network(batch[m], self._last(batch[m], batch.get(f"{m}_lengths")))
        return found if self.feature_hook is None else {m: self.feature_hook(m, x) for m, x in found.items()}

    def _text(self, hidden: Hidden) -> Tensor:
        if self.params.last_step == "padded":  # of the convolution, the last step alone
            return self.convolution(hidden.last[:, -2:].transpose(1, 2))[..., -1]
        x = self.convolution(hidden.last.transpose(1, 2))  # (B, d, L)
        last = (hidden.mask.sum(1) - 1).clamp(min=0).long()
        return x.gather(2, last[:, None, None].expand(-1, x.shape[1], 1)).squeeze(2)

    def _last(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        if self.params.last_step == "padded" or lengths is None:
            return torch.full((len(x),), x.shape[1] - 1, dtype=torch.int64, device=x.device)
        return (lengths - 1).clamp(min=0)

    def groups(self) -> list[Group]:
        encoder = [p for g in self.encoder_groups() for p in g.params]
        own = [p for n, p in self.own_named_parameters() if not n.startswith("convolution.")]
        return [Group("encoder", [*encoder, self.convolution.weight]), Group("main", own)]


class Unimodal(nn.ModuleDict):
    """A bottleneck for each modality."""

    def __init__(self, p: Params) -> None:
        super().__init__({m: Bottleneck(p) for m in MODALITIES})

    def forward(self, x: Latents, noise: Latents | None = None) -> Encoded:
        """x_m [B, d] -> latents z_m, and mu_m, sigma_m, the decoders' scores as side."""
        latents, side = {}, {}
        for m, bottleneck in self.items():
            mu, sigma, z = bottleneck(x[m], noise and noise[m])
            latents[m] = z
            side |= {f"last_{m}": x[m], f"mu_{m}": mu, f"std_{m}": sigma, f"prediction_{m}": bottleneck.decode(z)}
        return Encoded(latents, side)


def unimodal_losses(side: Latents, label: Tensor, beta: float) -> dict[str, Tensor]:
    """L1 + beta KL of each modality's bottleneck."""
    return {
        f"bottleneck_{m}": F.l1_loss(side[f"prediction_{m}"], label) + beta * divergence(side[f"mu_{m}"], side[f"std_{m}"])
        for m in MODALITIES
    }


def fusion_loss(output: Output, label: Tensor, beta: float) -> Tensor:
    """L1 + beta KL of the bottleneck of the fused vector, whose decoder gives the prediction."""
    f = output.features
    return F.l1_loss(output.prediction, label) + beta * divergence(f["mu_fusion"], f["std_fusion"])
