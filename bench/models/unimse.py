"""UniMSE: sentiment as text that T5 writes, with adapters for audio and vision inside it (Hu et al., EMNLP 2022).

    "sst2 sentence: " and the transcript -> T5 -> the label as words, "negative -1.4": token cross entropy
    audio, vision: one-layer LSTM each, its last state -> Lin -> vectors a, v
    adapters behind the feed-forward layers of T5's last blocks, in encoder and decoder (parts/t5_adapters.py)
    contrast (off by default, as released): 0.5 of each of two cross entropies of the encoder's last block with the LSTMs' states

Trained: T5's last two blocks, the adapters, the LSTMs; the rest of T5 is frozen.

Fusion is inside T5, so there are no latents before late fusion, and no mixer mixes here.

What differs from the release: one data set instead of four (MOSI, MOSEI, MELD and IEMOCAP), so that the string has no
emotions filled in from the most similar text of another corpus: polarity and score alone, its wording ours; the score is the
label rounded to 0.1. Decoding is greedy among the strings of all such scores, so that every prediction is a number and no
label is read from free text. The epoch is selected on validation, where the release prints test figures of each. The
release's extra permutation of the LSTMs' outputs, which exchanges rows between samples, is off (`permute`); it reaches the
"cross" adapter and the contrast only.

Proved against numbers of the release: encoders, all three adapters and the contrast; T5 itself is transformers'.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import encoders
from bench.models.base import Backbone, Batch, Encoded, Group, Inputs, Latents, Output, Pass, Update
from bench.models.parts import t5_adapters as parts
from bench.models.parts.seq2seq import Inside, build, pieces, shown
from bench.models.parts.words import one_of

VERSION = 1
MIXABLE = False
PREFIX = "sst2 sentence:"
STEP = 0.1  # between two scores that can be written
PAD, END = 0, 1  # T5's ids


@dataclass(frozen=True)
class Params:
    """The release's values."""

    encoder: str = "t5-base"
    adapter: str = "ffn"  # adapter behind a feed-forward layer: "ffn", "parallel" or "cross"
    adapted: int = 3  # last blocks of encoder and decoder that have an adapter
    trained: int = 2  # last blocks that are trained
    adapter_size: int = 64  # hidden width of the gated network of the adapters "ffn" and "parallel"
    hidden: int = 32  # of the LSTMs, and of the vectors a, v
    cross_width: int = 30  # of the cross adapter's attention, and of the contrastive vectors
    cross_heads: int = 5  # of the cross adapter
    cross_layers: int = 2  # layers of the cross adapter; ours: not known here
    contrast: bool = False  # add the contrastive loss, info_nce
    lambda_contrast: float = 0.5  # weight of the contrastive loss
    permute: bool = False  # the release's exchange of rows

    def __post_init__(self) -> None:
        one_of("unimse", "adapter", self.adapter, ("ffn", "parallel", "cross"))


def spelled(score: float) -> str:
    """A label as T5 is to write it."""
    score = round(score, 1) + 0.0
    return f"{'positive' if score > 0 else 'negative' if score < 0 else 'neutral'} {score:.1f}"


class Model(Backbone):
    """UniMSE. Prediction [B], the score of the string that was written; no gradient reaches it."""

    needs_tokens = True
    prefix: Tensor
    strings: Tensor
    scores: Tensor

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__()
        p = self.params = params
        self.label_bound = inputs.label_bound
        self.test_only = encoders.spec(p.encoder).test_only
        self.t5 = build("unimse", p.encoder, "t5")
        d, L = self.t5.config.d_model, inputs.text[0]
        self.sequences = nn.ModuleDict({m: parts.Sequence(getattr(inputs, m)[1], p.hidden, p.hidden) for m in ("vision", "audio")})
        n = round(2 * inputs.label_bound / STEP) + 1
        scores = torch.linspace(-inputs.label_bound, inputs.label_bound, n)
        rows = pieces(p.encoder, [spelled(s) for s in scores.tolist()], (END,))
        width = max(map(len, rows))
        self.register_buffer("scores", scores, persistent=False)
        self.register_buffer("strings", torch.tensor([r + [PAD] * (width - len(r)) for r in rows]), persistent=False)  # (R, S)
        self.register_buffer("prefix", torch.tensor(pieces(p.encoder, [PREFIX])[0]), persistent=False)
        steps = max(L + len(self.prefix), inputs.audio[0], inputs.vision[0], width)
        sizes = (p.hidden, p.cross_width, p.cross_heads, p.cross_layers, steps) if p.adapter == "cross" else (p.hidden, p.hidden, p.adapter_size)
        kind = {"ffn": parts.FfnAdapter, "parallel": parts.ParallelAdapter, "cross": parts.CrossAdapter}[p.adapter]
        self.contrast = parts.Contrast(d, p.hidden, p.cross_width) if p.contrast else None
        self.context: dict[str, Tensor] = {}  # of the batch at hand
        self.adapters = nn.ModuleDict()
        self.t5.requires_grad_(False)
        for side, stack in (("encoder", self.t5.encoder), ("decoder", self.t5.decoder)):
            for i, block in enumerate(stack.block):
                left = len(stack.block) - i
                if left <= p.trained:
                    block.requires_grad_(True)
                if left <= p.adapted:
                    adapter = self.adapters[f"{side}_{i}"] = kind(d, *sizes)
                    block.layer[-1] = Inside(block.layer[-1], adapter, self.context, ("vision", "audio"), before=False)
        self._last: list[Tensor] = []  # states of the encoder's last block
        self.t5.encoder.block[-1].register_forward_hook(self._keep)
        self.latent_dims = {}

    def _keep(self, module: nn.Module, args: object, out: object) -> None:
        self._last[:] = [out[0] if isinstance(out, tuple) else out]

    def encode(self, batch: Batch) -> Encoded:
        """latents: text [B, L, d], the encoder's states, its mask, and what the adapters read of vision and audio."""
        ids, mask, _ = batch["text_bert"].unbind(1)  # (B, L)
        front = self.prefix.expand(len(ids), -1)
        ids, mask = torch.cat([front, ids], 1), torch.cat([torch.ones_like(front), mask], 1)
        read, side = {}, {}
        for m, network in self.sequences.items():
            lengths = batch[f"{m}_lengths"].clamp(min=1)
            states, vector = network(batch[m], lengths)
            side[f"states_{m}"] = parts.permuted(states, lengths) if self.params.permute else states
            read[m] = side[f"states_{m}"] if self.params.adapter == "cross" else vector
        self.context.update(read)
        text = self.t5.encoder(input_ids=ids, attention_mask=shown(mask)).last_hidden_state
        side["last_block"] = self._last[0]
        return Encoded({"text": text, "mask": mask, **read}, side)

    def logits(self, latents: Latents, written: Tensor) -> Tensor:
        """[B, S, V]: what follows each of the pieces `written` [B, S] of the answer, the start symbol (padding) first."""
        self.context.update({m: latents[m] for m in self.sequences})
        states = self.t5.decoder(
            input_ids=written, encoder_hidden_states=latents["text"], encoder_attention_mask=shown(latents["mask"]), use_cache=False,
        ).last_hidden_state
        scale = self.t5.config.d_model**-0.5 if self.t5.config.tie_word_embeddings else 1.0
        return self.t5.lm_head(states * scale)

    def fuse(self, latents: Latents) -> Output:
        n, (rows, width) = len(latents["text"]), self.strings.shape
        alive = torch.ones((n, rows), dtype=torch.bool, device=self.strings.device)  # strings that begin as what is written
        written = torch.full((n, 1), PAD, device=self.strings.device)
        for s in range(width):
            following = self.logits(latents, written)[:, -1, self.strings[:, s]]  # (B, R)
            piece = self.strings[following.masked_fill(~alive, -torch.inf).argmax(1), s][:, None]  # (B, 1)
            alive = alive & (self.strings[:, s] == piece)
            written = torch.cat([written, piece], 1)
        return Output(self.scores[alive.to(torch.int8).argmax(1)], {"written": written[:, 1:]})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.encode(batch)
        row = ((batch["label"] + self.label_bound) / STEP).round().long().clamp(0, len(self.scores) - 1)
        wanted = self.strings[row]  # (B, S)
        written = F.pad(wanted[:, :-1], (1, 0), value=PAD)
        logits = self.logits(encoded.latents, written)
        ending = wanted.eq(PAD)
        each = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
        found = {"words": each.masked_fill(ending, 0.0).sum() / (~ending).sum()}
        if self.contrast is not None:
            for m in self.sequences:
                own = self.contrast(encoded.side["last_block"], encoded.side[f"states_{m}"])
                found[f"contrast_{m}"] = self.params.lambda_contrast * own
        return found

    def passes(self, epoch: int) -> tuple[Pass, ...]:
        return (Pass((Update("write", self.losses),)),)

    def groups(self) -> list[Group]:
        own = [p for n, p in self.named_parameters() if not n.startswith("t5.")]
        return [Group("encoder", [p for p in self.t5.parameters() if p.requires_grad]), Group("main", own)]
