"""Unimodal features U_m of text, audio and vision as SAM-LML makes them (Sec. A.1), for it and for the systems that its
authors ran beside it.

    text: Lin of the text encoder's states; audio, vision: convolution and transformer (sequence_nets.py), after a scaling
    to [0, 1]; HCF, where the file has it: a transformer too, joined with text to one modality (Eq. 33)

A subclass's Params has `encoder`, `finetune`, `attend_padding`, `scale`, `order`, `blocks`, `layers`, `heads`,
`feed_forward`, `attention_dropout`, `dropout` and `d` (bench/models/samlml.py says what they are). Legend: B batch,
T steps, d width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from bench.draws import Draws
from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs, Latents
from bench.models.parts.sequence_nets import ConvTransformer, Stack, TransformerConv
from bench.models.parts.text import BIAS_AND_NORM, Hidden, TextBackbone
from bench.models.parts.words import RANGES, MinMax, one_of

MODALITIES = ("text", "audio", "vision")
SEQUENCES = ("audio", "vision", "hcf")  # order of `layers`, `heads`, `feed_forward`


def check(model: str, p: Any) -> None:
    """Raises BenchError for parameters of the unimodal networks that cannot be."""
    one_of(model, "scale", p.scale, (*RANGES, "none"))
    one_of(model, "order", p.order, ("conv-transformer", "transformer-conv"))
    for name in ("layers", "heads", "feed_forward"):
        if len(getattr(p, name)) != len(SEQUENCES):
            raise BenchError(f"{model}: {name} needs one number each for {', '.join(SEQUENCES)}")


def kept(m: str, x: Tensor, batch: Batch) -> Tensor:
    """x [B, T, .] with zeros, whatever stood there, where the batch says that modality m is missing."""
    return torch.where(batch[f"keep_{m}"].bool()[:, None, None], x, 0.0) if f"keep_{m}" in batch else x


class UnimodalBackbone(TextBackbone):
    """Base of models on U_m [B, T_m, d]. Audio, vision and text may have steps of their own."""

    needs_words = True
    feature_hook = None  # is called on every U_m
    at_input: tuple[str, ...] = ("audio", "vision")  # whose missing samples become noise at the network's input

    def __init__(self, params: Any, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        self.params = p = params
        self.hcf = getattr(inputs, "hcf", None)
        network = {"conv-transformer": ConvTransformer, "transformer-conv": TransformerConv}[p.order]
        shapes = {"audio": inputs.audio, "vision": inputs.vision} | ({"hcf": self.hcf} if self.hcf else {})
        stacks = {
            m: Stack(p.blocks, p.layers[i], p.heads[i], p.feed_forward[i], p.attention_dropout, p.dropout)
            for i, m in enumerate(SEQUENCES)
        }
        self.scale = nn.ModuleDict({m: MinMax(p.scale) for m in ("audio", "vision") if p.scale != "none"})
        self.text_projection = nn.Linear(self.text_width, p.d)
        self.sequences = nn.ModuleDict({m: network(*shape, p.d, stacks[m]) for m, shape in shapes.items()})
        self.merge = nn.Linear(2 * p.d, p.d) if self.hcf else None  # Eq. 33

    def encode(self, batch: Batch) -> Encoded:
        if self.text_encoder is None or not self.params.attend_padding:
            return super().encode(batch)
        ids, mask, segments = batch["text_bert"].unbind(1)  # (B, L) each
        hidden = self.text_encoder(torch.stack([ids, torch.ones_like(mask), segments], 1))
        return self.encode_hidden(hidden._replace(mask=mask.float()), batch)

    def unimodal(self, hidden: Hidden, batch: Batch) -> Latents:
        """U_m of the three modalities, corrupted if asked."""
        features = {"text": self.text_projection(kept("text", hidden.last, batch))}  # (B, L, d)
        for m, network in self.sequences.items():
            z = kept("text" if m == "hcf" else m, batch[m], batch)  # (B, T, d_m)
            z = self.scale[m](z) if m in self.scale else z
            if m in self.at_input and f"keep_{m}" in batch:
                z = self.noised(m, z, batch)
            features[m] = network(z)
        if self.merge is not None:
            features["text"] = self.merge(torch.cat([features["text"], features.pop("hcf")], -1))
        if self.feature_hook is not None:
            features = {m: self.feature_hook(m, u) for m, u in features.items()}
        return {
            m: self.noised(m, u, batch) if f"keep_{m}" in batch and m not in self.at_input else u
            for m, u in features.items()
        }

    def noised(self, m: str, x: Tensor, batch: Batch) -> Tensor:
        """x [B, T, .] with Gaussian noise in place of the rows whose modality is missing."""
        if self.training:
            noise = torch.randn_like(x)
        else:
            noise = Draws(0, "missing", 0, batch["index"]).normal(m, tuple(x.shape[1:])).to(x.dtype)
        return torch.where(batch[f"keep_{m}"].bool()[:, None, None], x, noise)

    def groups(self) -> list[Group]:
        named = self.own_named_parameters()
        spared = {n for n, _ in named if any(part in n for part in ("bias", "norm", "end_"))}
        return [
            *self.encoder_groups(BIAS_AND_NORM),
            Group("main", [p for n, p in named if n not in spared]),
            Group("main-no-decay", [p for n, p in named if n in spared], decay=False),
        ]
