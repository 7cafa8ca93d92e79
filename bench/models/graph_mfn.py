"""Graph-MFN: memory fusion with a dynamic fusion graph (Zadeh et al., ACL 2018), as M-SENA runs it.

    s_m = ReLU(Lin(concat(h_{t-1}, h_t))) of each modality's LSTM
    efficacies = Lin Lin Lin (concat(s_l, s_a, s_v)): 19 numbers without bound, one per edge
    node = Lin(100) Lin(n) of its children, each times its edge's efficacy; la, lv, av, lav, and the top over all seven
    the top's value is what MFN's candidates and gates attend to (parts/memory_fusion.py)

Latents: text, audio, vision [B, h_m], the last hidden states, and memory [B, memory].

Quirk of M-SENA kept (docs/quirks.md): the networks of the four nodes below the top lie in a plain dict and so are in
no optimiser: they keep their random start. `train_nodes` trains them, which is another model. The second map of every
node starts from one common draw.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.models.base import Backbone, Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.layers import pool_steps
from bench.models.parts.lstm import LSTM
from bench.models.parts.memory_fusion import Gate, Inner, gated_memory

VERSION = 1
MODALITIES = ("text", "audio", "vision")
INNER = 100  # width inside every node and the first map of the efficacies
CHILDREN = {  # node -> its children, in the order of its edges
    "ta": ("text", "audio"),
    "tv": ("text", "vision"),
    "av": ("audio", "vision"),
    "tav": (*MODALITIES, "ta", "tv", "av"),
    "top": (*MODALITIES, "ta", "tv", "av", "tav"),
}
EDGES = sum(map(len, CHILDREN.values()))


@dataclass(frozen=True)
class Params:
    """M-SENA's values for MOSI. Sizes of the inner networks are those of their hidden layers."""

    text_hidden: int = 256  # hidden width of the text's LSTM, hidden_dims[t]
    audio_hidden: int = 32  # hidden width of the audio's LSTM, hidden_dims[a]
    vision_hidden: int = 256  # hidden width of the vision's LSTM, hidden_dims[v]
    memory: int = 300  # width of the memory, memsize
    node: int = 64  # width of the graph's nodes, inner_node_dim
    candidate: int = 32  # hidden width of the network of the memory's candidates, NN
    candidate_dropout: float = 0.0  # of the network of the memory's candidates
    keep: int = 128  # hidden width of the retain gate, gamma1
    keep_dropout: float = 0.5  # of the retain gate
    write: int = 64  # hidden width of the update gate, gamma2
    write_dropout: float = 0.5  # of the update gate
    output: int = 256  # hidden width of the head, out
    output_dropout: float = 0.0  # of the head
    train_nodes: bool = False  # the four nodes below the top are trained


class FusionGraph(nn.Module):
    """Singletons [B, T, h_m] by modality -> the top node [B, T, n] and the efficacies [B, T, 19]."""

    def __init__(self, widths: Mapping[str, int], n: int) -> None:
        super().__init__()
        total = sum(widths.values())
        self.efficacies = nn.Sequential(nn.Linear(total, INNER), nn.Linear(INNER, n), nn.Linear(n, EDGES))
        size = {**widths, **dict.fromkeys(CHILDREN, n)}
        self.nodes = nn.ModuleDict({
            k: nn.Sequential(nn.Linear(sum(size[c] for c in children), INNER), nn.Linear(INNER, n))
            for k, children in CHILDREN.items()
        })
        for node in self.nodes.values():
            node[1].load_state_dict(self.nodes["top"][1].state_dict())

    def forward(self, singletons: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        efficacies = self.efficacies(torch.cat(list(singletons.values()), -1))
        edges, values = iter(efficacies.unbind(-1)), dict(singletons)
        for k, children in CHILDREN.items():
            values[k] = self.nodes[k](torch.cat([next(edges)[..., None] * values[c] for c in children], -1))
        return values["top"], efficacies


class Model(Backbone):
    """Graph-MFN. Prediction [B], linear."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__()
        p, self.label_bound, self.steps = params, inputs.label_bound, inputs.text[0]
        hidden = {m: getattr(p, f"{m}_hidden") for m in MODALITIES}
        self.lstm = nn.ModuleDict({m: LSTM(getattr(inputs, m)[1], h) for m, h in hidden.items()})
        self.singleton = nn.ModuleDict({m: nn.Linear(2 * h, h) for m, h in hidden.items()})
        self.graph = FusionGraph(hidden, p.node)
        self.candidate = Inner(p.node, Gate(p.candidate, p.candidate_dropout), p.memory)
        self.keep = Inner(p.node + p.memory, Gate(p.keep, p.keep_dropout), p.memory)
        self.write = Inner(p.node + p.memory, Gate(p.write, p.write_dropout), p.memory)
        self.head = Inner(sum(hidden.values()) + p.memory, Gate(p.output, p.output_dropout), 1)
        self.latent_dims = {**{m: (h,) for m, h in hidden.items()}, "memory": (p.memory,)}
        for k in CHILDREN:
            self.graph.nodes[k].requires_grad_(p.train_nodes or k == "top")

    def encode(self, batch: Batch) -> Encoded:
        states, singletons = {}, {}
        for m, rnn in self.lstm.items():
            h = states[m] = rnn.all_states(pool_steps(batch[m], self.steps))  # (B, T, h_m)
            before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
            singletons[m] = self.singleton[m](torch.cat([before, h], -1)).relu()
        attended, efficacies = self.graph(singletons)
        memory = gated_memory(attended, self.candidate(attended).tanh(), self.keep, self.write)
        return Encoded({**{m: h[:, -1] for m, h in states.items()}, "memory": memory}, {"efficacies": efficacies})

    def fuse(self, latents: Latents) -> Output:
        fused = torch.cat([latents[k] for k in self.latent_dims], 1)
        return Output(self.head(fused).squeeze(1), {"fusion": fused})
