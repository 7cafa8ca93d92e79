"""AtCAF: attention-based causality-aware fusion (Huang et al., Information Fusion 2025).

    debiasing of each sequence x [B, T, d]: a local self-attention branch, and a global one whose keys and values are a
    learned dictionary [K, d]; concat -> three tanh layers -> x' [B, T, d]
    text queries audio, text queries vision -> means over time [B, w] -> tanh layers (the last: z) -> prediction
    the same once more with weights of its own and attention weights that are permuted over the batch: counterfactual
    loss: task + alpha NCE(unimodal vectors, z - counterfactual z) - beta lld + eta effect; effect: the task criterion
    of prediction minus counterfactual prediction
    lld: Gaussian log-likelihoods between the unimodal vectors (text to vision, text to audio, vision to audio)

Latents: the two vectors before the head, text_audio and text_vision [B, w].

The release's defects, with their switches (docs/quirks.md): the key padding mask reaches the wrong heads and samples
(`mask` "release"; here a sample's own); the local branch attends to padding (`mask_local`); the networks of lld keep
their random start, as their optimiser is never stepped (`train_lld`: a pass of their own before each epoch, as MMIM
trains them); the dictionaries start random, as the Xavier loop overwrites the K-means centres. The test split takes no
part in selection here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output, Pass, Update
from bench.models.parts.debias import Cross, Debias, TanhNet
from bench.models.parts.encoder import Alter, Encoder, Rates, interleaved, key_bias
from bench.models.parts.lstm import LSTM
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.words import one_of

VERSION = 1
MODALITIES = ("text", "audio", "vision")
PAIRS = (("text", "vision"), ("text", "audio"), ("vision", "audio"))  # of lld
KINDS = ("shuffle", "reversed", "uniform", "random")


@dataclass(frozen=True)
class Params:
    """The release's values."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    max_len: int = 50
    width_self: int = 30  # width of the debiasing's attention, model_dim_self
    heads_self: int = 5  # of the debiasing's attention
    width: int = 30  # width of cross-modal attention, model_dim_cross
    heads: int = 5  # of cross-modal attention
    debias_layers: int = 3  # of the debiasing's encoders
    cross_layers: int = 6  # of cross-modal attention
    counterfactual_layers: int = 2  # of the counterfactual cross-modal attention
    dictionary: int = 50  # entries of a modality's dictionary, K
    text_mlp: int = 64  # hidden width of the map behind the text's debiasing
    audio_mlp: int = 16  # hidden width of the map behind the audio's debiasing
    vision_mlp: int = 16  # hidden width of the map behind the vision's debiasing
    audio_hidden: int = 16  # hidden width of the audio's LSTM, d_ah
    vision_hidden: int = 16  # hidden width of the vision's LSTM, d_vh
    audio_out: int = 16  # width of the audio's unimodal vector, d_aout
    vision_out: int = 16  # of the vision's unimodal vector, d_vout
    head: int = 64  # hidden width of the heads, d_prjh
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    embed_dropout: float = 0.25
    head_dropout: float = 0.1  # of the heads
    counterfactual: str = "shuffle"  # attention weights: "shuffle" (over the batch), "reversed" (inverted), "uniform" or "random"
    alpha: float = 0.1  # weight of NCE
    beta: float = 0.1  # weight of lld
    eta: float = 0.1  # weight of the effect's loss
    mask: str = "own"  # key padding mask of "own" heads and samples, or of the wrong ones ("release")
    mask_local: bool = False  # the local branch of the debiasing leaves padding out
    train_lld: bool = False  # the networks of lld are trained, in a pass of their own before each epoch

    def __post_init__(self) -> None:
        one_of("atcaf", "counterfactual", self.counterfactual, KINDS)
        one_of("atcaf", "mask", self.mask, ("own", "release"))


class Likelihood(nn.Module):
    """Gaussian log-likelihood of y given x, without normalising constant or log-determinant; scalar."""

    def __init__(self, d: int, out: int) -> None:
        super().__init__()
        self.mean, self.log_variance = (
            nn.Sequential(nn.Linear(d, out), nn.ReLU(), nn.Linear(out, out)) for _ in range(2)
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (-((self.mean(x) - y) ** 2) / 2 / self.log_variance(x).exp()).sum(-1).mean()


class Model(TextBackbone):
    """AtCAF. Prediction [B], linear."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p = self.params = params
        d = {"text": self.text_width, "audio": inputs.audio[1], "vision": inputs.vision[1]}
        steps = {m: getattr(inputs, m)[0] for m in MODALITIES}
        rates = Rates(p.attention_dropout, p.relu_dropout, p.residual_dropout, p.embed_dropout)
        sizes = p.width_self, p.width, p.heads_self, p.debias_layers, p.dictionary, rates
        self.debias = nn.ModuleDict({m: Debias(d[m], steps[m], getattr(p, f"{m}_mlp"), *sizes) for m in MODALITIES})

        def cross(layers: int) -> nn.ModuleDict:
            table = interleaved(max(steps.values()), p.width)
            return nn.ModuleDict({
                m: Cross(d["text"], d[m], Encoder(p.width, p.heads, layers, rates, table), p.width)
                for m in ("vision", "audio")
            })

        self.cross, self.counter = cross(p.cross_layers), cross(p.counterfactual_layers)
        self.head, self.counter_head = (TanhNet(2 * p.width, p.head, 1, p.head_dropout) for _ in range(2))
        out = {"text": d["text"], "audio": p.audio_out, "vision": p.vision_out}
        self.lstm = nn.ModuleDict({m: LSTM(d[m], getattr(p, f"{m}_hidden")) for m in ("vision", "audio")})
        self.lstm_out = nn.ModuleDict({m: nn.Linear(getattr(p, f"{m}_hidden"), out[m]) for m in ("vision", "audio")})
        self.lld = nn.ModuleDict({f"{x}_{y}": Likelihood(out[x], out[y]) for x, y in PAIRS})
        self.nce = nn.ModuleDict({m: nn.Linear(p.head, out[m]) for m in MODALITIES})
        for _, q in self.own_named_parameters():
            if q.ndim > 1:
                nn.init.xavier_uniform_(q)
        self.latent_dims = {"text_audio": (p.width,), "text_vision": (p.width,)}
        self.criterion = F.binary_cross_entropy_with_logits if inputs.task == "binary" else F.l1_loss

    def biases(self, batch: Batch) -> dict[str, Tensor]:
        """What is added to attention scores for padded keys, audio and vision -> [B, 1 or H, 1, S]."""
        found = {}
        for m in ("audio", "vision"):
            bias = key_bias(batch[m], batch[f"{m}_lengths"].clamp(min=1))
            if self.params.mask == "release":  # row n of the B * H scores has the mask of sample n mod B
                B, H = len(bias), self.params.heads
                row = torch.arange(B * H, device=bias.device).view(B, H) % B
                bias = bias[:, 0][row]  # (B, H, 1, S)
            found[m] = bias
        return found

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        sequences = {"text": hidden.last, "audio": batch["audio"], "vision": batch["vision"]}
        own = {m: None for m in MODALITIES}
        if self.params.mask_local:
            own = {m: key_bias(batch[m], batch[f"{m}_lengths"].clamp(min=1)) for m in ("audio", "vision")}
            own["text"] = key_bias(hidden.last, hidden.mask.sum(1).clamp(min=1))
        side = {}
        for m, x in sequences.items():
            side[f"mediated_{m}"], side[m] = self.debias[m](x, own[m])
        biases = self.biases(batch)
        latents = {f"text_{m}": self.cross[m](side["text"], side[m], biases[m]).mean(1) for m in ("audio", "vision")}
        return Encoded(latents, side)

    def fuse(self, latents: Latents) -> Output:
        y, z = self.head(torch.cat([latents["text_audio"], latents["text_vision"]], -1))
        return Output(y.squeeze(-1), {"fusion": z})

    def unimodal(self, side: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """First debiased token; last valid LSTM state of audio and vision."""
        found = {"text": side["text"][:, 0]}
        for m in ("audio", "vision"):
            last = batch[f"{m}_lengths"].clamp(1, side[m].shape[1]) - 1
            found[m] = self.lstm_out[m](self.lstm[m].last_state(side[m], last))
        return found

    def altered(self, kind: str, draws: dict[str, Tensor]) -> dict[str, Alter]:
        """How each branch's attention weights are changed. `draws`: modality -> random orders [layers, B] of "shuffle",
        uniform numbers like the weights of each layer of "random"."""
        def reversed_(w: Tensor) -> Tensor:
            inverse = torch.where(w > 0, 1 / w.where(w > 0, 1.0), 0.0)
            return inverse / inverse.sum(-1, keepdim=True)

        def uniform(w: Tensor) -> Tensor:
            return torch.where(w > 0, w.sum(-1, keepdim=True) / (w > 0).sum(-1, keepdim=True), 0.0)

        def random(w: Tensor, draw: Tensor) -> Tensor:
            kept = torch.where(w > 0, draw.view_as(w), 0.0)
            return kept / kept.sum(-1, keepdim=True)

        return {
            m: {
                "shuffle": lambda w, i, m=m: w[draws[m][i]], "reversed": lambda w, i: reversed_(w),
                "uniform": lambda w, i: uniform(w), "random": lambda w, i, m=m: random(w, draws[m][i]),
            }[kind]
            for m in ("vision", "audio")
        }

    def draw(self, batch: Batch, side: dict[str, Tensor]) -> dict[str, Tensor]:
        p, B = self.params, len(batch["label"])
        shape = (p.counterfactual_layers, B)
        if p.counterfactual == "random":
            return {
                m: torch.rand(*shape, p.heads, side["text"].shape[1], side[m].shape[1], device=side[m].device)
                for m in ("vision", "audio")
            }
        return {m: torch.rand(shape, device=side[m].device).argsort(1) for m in ("vision", "audio")}

    def counterfactual(self, side: dict[str, Tensor], batch: Batch, alter: dict[str, Alter]) -> tuple[Latents, Output]:
        biases = self.biases(batch)
        latents = {
            f"text_{m}": self.counter[m](side["text"], side[m], biases[m], alter[m]).mean(1)
            for m in ("audio", "vision")
        }
        y, z = self.counter_head(torch.cat([latents["text_audio"], latents["text_vision"]], -1))
        return latents, Output(y.squeeze(-1), {"fusion": z})

    def terms(self, unimodal: Latents, clean: Output, counter: Output, label: Tensor) -> dict[str, Tensor]:
        """Unweighted: nce_<modality>, lld_<x>_<y>, effect."""
        z = clean.features["fusion"] - counter.features["fusion"]
        found = {}
        for m, x in unimodal.items():
            a, b = F.normalize(x, dim=1), F.normalize(self.nce[m](z), dim=1)
            found[f"nce_{m}"] = -((a * b).sum(1) - (a @ b.T).logsumexp(1)).mean()
        found |= {f"lld_{x}_{y}": self.lld[f"{x}_{y}"](unimodal[x], unimodal[y]) for x, y in PAIRS}
        return found | {"effect": self.criterion(clean.prediction - counter.prediction, label)}

    def weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        p = self.params
        nce, lld = (sum(v for k, v in terms.items() if k.startswith(prefix)) for prefix in ("nce_", "lld_"))
        return {"nce": p.alpha * nce, "lld": -p.beta * lld, "effect": p.eta * terms["effect"]}

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        side, output = encoded.side, output or self.fuse(encoded.latents)
        alter = self.altered(self.params.counterfactual, self.draw(batch, side))
        _, counter = self.counterfactual(side, batch, alter)
        return self.weighted(self.terms(self.unimodal(side, batch), output, counter, batch["label"]))

    def likelihoods(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            x = self.unimodal(self.encode(batch).side, batch)
        return {"lld": -sum(self.lld[f"{a}_{b}"](x[a], x[b]) for a, b in PAIRS)}

    def passes(self, epoch: int) -> tuple[Pass, ...]:
        main = Pass((Update(groups=("encoder", "main")),))
        if not self.params.train_lld:
            return (main,)
        return (Pass((Update("networks", self.likelihoods, ("lld",), "lld"),)), main)

    def groups(self) -> list[Group]:
        own = [(n.startswith("lld."), q) for n, q in self.own_named_parameters()]
        return [*self.encoder_groups(), Group("lld", [q for a, q in own if a]), Group("main", [q for a, q in own if not a])]
