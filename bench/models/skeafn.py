"""SKEAFN: sentiment knowledge enhanced attention fusion network (Zhu et al., Information Fusion 2023).

    each modality: LSTM, LayerNorm, Lin [B, T, d]; text also Lin of its last state, the text vector
    text queries audio, and vision: layers of attention and feed-forward, LayerNorm behind each; mean over the tokens
    knowledge: a graph of the sentiment words of the text; message = edge weight * source's vector, the greatest of them;
    node = eta own + (1 - eta) message; mean over nodes -> sigmoid(Lin)
    concat(text, vision, audio, knowledge), gated by sigmoid(Lin ReLU Lin) -> three Lin with ReLU -> prediction

Latents: these four vectors, text, vision, audio and knowledge [B, d].

What differs from the release, whose knowledge files are not public: sentiment words are those of the VADER lexicon
(bench/lexicon.py) that are one word piece, the `lexicon_size` strongest; their vectors start as the text encoder's
embeddings (through no map where the widths agree, else random); every pair of words has an edge. Audio and vision are
standardised with the training split's statistics, per step and channel (`standardise` "none": not at all; the release
takes each split's own, the test split's too). The cosine schedule with restarts is not run.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench import encoders, lexicon
from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts.lstm import LSTM
from bench.models.parts.padded import last_step, step_mask
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.words import masked_mean, one_of

VERSION = 1
BRIEF = {"d": 64, "heads": 4, "lexicon_size": 50, "feed_forward": 32}  # parameters of a quick look
MODALITIES = ("text", "vision", "audio")
CHUNK = 256  # training rows read at once


@dataclass(frozen=True)
class Params:
    """The release's values, MOSI."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    d: int = 768  # of the latents and of all attention
    text_hidden: int = 512  # hidden width of the text's LSTM
    audio_hidden: int = 768  # hidden width of the audio's LSTM
    vision_hidden: int = 768  # hidden width of the vision's LSTM
    heads: int = 12
    layers: int = 2
    feed_forward: int = 3072
    dropout: float = 0.1
    words: int = 10  # sentiment words of a text in its graph, at most
    lexicon_size: int = 1000  # sentiment words of the lexicon in the knowledge graph, the strongest
    standardise: str = "train"  # audio and vision by the training split's statistics ("train"), or "none"

    def __post_init__(self) -> None:
        one_of("skeafn", "standardise", self.standardise, ("train", "none"))
        if self.d % self.heads:
            raise BenchError(f"skeafn: attention of width {self.d} cannot have {self.heads} heads")


class Recurrent(nn.Module):
    """LSTM over the first `lengths` steps: the sequence [B, T, d] and, with `vector`, the last state's map [B, d]."""

    def __init__(self, width: int, hidden: int, d: int, vector: bool) -> None:
        super().__init__()
        self.lstm, self.norm, self.out = LSTM(width, hidden), nn.LayerNorm(hidden), nn.Linear(hidden, d)
        self.vector = nn.Linear(hidden, d) if vector else None

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        states = self.lstm.all_states(x) * step_mask(x, lengths)
        return self.out(self.norm(states)), self.vector and self.vector(last_step(states, lengths))


class Interaction(nn.Module):
    """Text [B, L, d] reads a partner [B, T, d]; no masks."""

    def __init__(self, steps: int, p: Params) -> None:
        super().__init__()
        d = p.d
        self.positions = nn.Parameter(torch.randn(steps, d))
        self.attention = nn.ModuleList(nn.MultiheadAttention(d, p.heads, p.dropout, batch_first=True) for _ in range(p.layers))
        self.feed_forward = nn.ModuleList(
            nn.Sequential(nn.Linear(d, p.feed_forward), nn.GELU(), nn.Linear(p.feed_forward, d), nn.Dropout(p.dropout))
            for _ in range(p.layers)
        )
        self.norms = nn.ModuleList(nn.ModuleList([nn.LayerNorm(d), nn.LayerNorm(d)]) for _ in range(p.layers))

    def forward(self, x: Tensor, partner: Tensor) -> Tensor:
        x = x + self.positions[: x.shape[1]] * x.shape[-1] ** -0.5
        for attention, feed_forward, (first, second) in zip(self.attention, self.feed_forward, self.norms):
            x = first(x + attention(x, partner, partner, need_weights=False)[0])
            x = second(x + feed_forward(x))
        return x


class Knowledge(nn.Module):
    """words [B, K] int64, 0 is padding -> graph mean [B, d]. `edges` [V + 1, V + 1] int64: number of the edge from a word
    (row) to another, 0 where padding is one of them."""

    edges: Tensor

    def __init__(self, nodes: int, d: int, edges: Tensor) -> None:
        super().__init__()
        self.node = nn.Parameter(torch.randn(nodes + 1, d) * 0.02)
        self.edge = nn.Parameter(torch.ones(int(edges.max()) + 1))
        self.eta = nn.Parameter(torch.zeros(1))
        self.out = nn.Linear(d, d)
        self.register_buffer("edges", edges, persistent=False)

    def mean(self, words: Tensor) -> Tensor:
        real = words > 0  # (B, K)
        own = self.node[words]  # (B, K, d)
        weight = self.edge[self.edges[words[:, :, None], words[:, None]]]  # (B, source, target)
        lone = ~real.any(1)  # one self loop on padding where there is no word
        linked = real[:, :, None] & real[:, None] | lone[:, None, None]
        message = weight[..., None] * own[:, :, None]  # (B, source, target, d)
        gathered = message.masked_fill(~linked[..., None], -torch.inf).amax(1)
        gathered = torch.where((real | lone[:, None])[..., None], gathered, 0.0)
        node = self.eta * own + (1 - self.eta) * gathered
        earlier = (words[:, :, None] == words[:, None]).tril(-1).any(2)  # the same word stands before it
        return masked_mean(node, ~earlier)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(words)
        return self.out(mean).sigmoid(), mean


class Model(TextBackbone):
    """SKEAFN. Prediction [B], linear. `edges`: of a graph whose words come with the batch (knowledge_words)."""

    def __init__(self, params: Params, inputs: Inputs, edges: Tensor | None = None) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p, d = params, params.d
        self.params, self.size = params, inputs.train_size
        widths = {"text": self.text_width, "audio": inputs.audio[1], "vision": inputs.vision[1]}
        self.recurrent = nn.ModuleDict({
            m: Recurrent(w, getattr(p, f"{m}_hidden"), d, m == "text") for m, w in widths.items()
        })
        self.interaction = nn.ModuleDict({m: Interaction(inputs.text[0], p) for m in ("audio", "vision")})
        pieces = self._lexicon() if edges is None else None
        if edges is None:
            n = int(pieces.max())
            edges = torch.zeros(n + 1, n + 1, dtype=torch.int64)
            edges[1:, 1:] = torch.arange(1, n * n + 1).view(n, n)
        self.register_buffer("node_of_piece", pieces, persistent=False)
        self.knowledge = Knowledge(len(edges) - 1, d, edges)
        if pieces is not None and self.text_encoder is not None and self.text_width == d:
            table = self.text_encoder.transformer.get_input_embeddings().weight
            with torch.no_grad():
                held = pieces > 0
                self.knowledge.node[pieces[held]] = table[: len(pieces)][held]
        self.squeeze, self.excite = nn.Linear(4 * d, 4 * d, bias=False), nn.Linear(4 * d, 4 * d, bias=False)
        self.head = nn.ModuleList([nn.Linear(4 * d, 4 * d), nn.Linear(4 * d, 4 * d), nn.Linear(4 * d, 1)])
        self.latent_dims = {m: (d,) for m in (*MODALITIES, "knowledge")}
        for m in ("audio", "vision"):
            self.register_buffer(f"mean_{m}", torch.zeros(getattr(inputs, m)))
            self.register_buffer(f"spread_{m}", torch.ones(getattr(inputs, m)))

    def _lexicon(self) -> Tensor:
        """Word piece -> node, 0 where it is no sentiment word; [size of the vocabulary]."""
        if self.text_encoder is None:
            raise BenchError("skeafn: sentiment words are found among word pieces, so encoder cannot be 'none'")
        words = [word for word, _ in lexicon.strongest_first()]
        tokens = torch.as_tensor(encoders.tokenise(words, self.text_encoder.name, 4)).long()  # (n, 3, 4)
        single = tokens[tokens[:, 1].sum(1) == 3][:, 0, 1]  # [CLS] word [SEP]
        found = torch.zeros(self.text_encoder.transformer.config.vocab_size, dtype=torch.int64)
        kept = list(dict.fromkeys(single.tolist()))[: self.params.lexicon_size]
        found[torch.tensor(kept)] = torch.arange(1, len(kept) + 1)
        return found

    def sentiment_words(self, batch: Batch) -> Tensor:
        """Nodes of the first words of each text that are in the lexicon, then 0; [B, K]."""
        if self.node_of_piece is None:
            return batch["knowledge_words"]
        ids, mask, _ = batch["text_bert"].unbind(1)
        node = self.node_of_piece[ids] * mask  # (B, L)
        place = torch.arange(node.shape[1], 0, -1, device=node.device) * (node > 0)
        order, first = place.topk(min(self.params.words, node.shape[1]), dim=1)
        return node.gather(1, first) * (order > 0)

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        x = {"text": hidden.last}
        lengths = {"text": torch.full_like(batch["audio_lengths"], hidden.last.shape[1])}  # padding is read
        for m in ("audio", "vision"):
            x[m] = (batch[m] - self.get_buffer(f"mean_{m}")) / self.get_buffer(f"spread_{m}")
            lengths[m] = batch[f"{m}_lengths"].clamp(1, x[m].shape[1])
        found = {m: self.recurrent[m](x[m], lengths[m]) for m in x}
        side = {f"{m}_sequence": sequence for m, (sequence, _) in found.items()}
        latents = {"text": found["text"][1]}
        for m in ("vision", "audio"):
            side[f"text_{m}_sequence"] = self.interaction[m](side["text_sequence"], side[f"{m}_sequence"])
            latents[m] = masked_mean(side[f"text_{m}_sequence"], hidden.mask)
        latents["knowledge"], side["graph_mean"] = self.knowledge(self.sentiment_words(batch))
        return Encoded(latents, side)

    def fuse(self, latents: Latents) -> Output:
        fused = torch.cat([latents[k] for k in self.latent_dims], 1)  # (B, 4d)
        gates = self.excite(self.squeeze(fused).relu()).sigmoid()
        first, second, last = self.head
        y = last(second(first(fused * gates).relu()).relu())
        return Output(y.squeeze(1), {"fusion": fused, "gates": gates})

    @torch.no_grad()
    def on_epoch_start(self, epoch: int) -> None:
        """Statistics of audio and vision over the training split, once."""
        if epoch != 1 or self.rows_of is None or self.params.standardise == "none":
            return
        for m in ("audio", "vision"):
            total = torch.zeros_like(self.get_buffer(f"mean_{m}"), dtype=torch.float64)
            square, n = torch.zeros_like(total), 0
            for rows in torch.arange(self.size, device=total.device).split(CHUNK):
                x = self.rows_of(rows)[m].double()
                total, square, n = total + x.sum(0), square + x.square().sum(0), n + len(x)
            mean = total / n
            spread = (square / n - mean.square()).clamp(min=0).sqrt()
            self.get_buffer(f"mean_{m}").copy_(mean)
            self.get_buffer(f"spread_{m}").copy_(torch.where(spread > 1e-6, spread, torch.inf))  # constant: 0

    def groups(self) -> list[Group]:
        named = self.own_named_parameters()
        apart = {"text": "recurrent.text.", "audio": "recurrent.audio.", "vision": "recurrent.vision.", "knowledge": "knowledge."}
        groups = [Group(g, [q for n, q in named if n.startswith(prefix)]) for g, prefix in apart.items()]
        rest = [q for n, q in named if not n.startswith(tuple(apart.values()))]
        return [*self.encoder_groups(), *groups, Group("main", rest)]
