"""One training step of MulT on one CPU thread: tower by tower as it is usually written, against the stacked towers.

    python benchmarks/mult_step.py            # prints a table and writes mult_step.json beside this file

MOSI aligned at its real sizes (text 50 x 768, audio 50 x 5, vision 50 x 20), M-SENA's parameters, forward, L1 loss,
backward and Adam. Both models hold the same weights and must give the same evaluation-mode predictions before they
are timed; then their steps alternate in one process. Times are CPU time of the process, so that other load on the
machine weighs little; the median over the steps is reported, with the fastest step beside it. A last row has widths
so small that only the number of calls counts, as on a GPU.
"""

import json
import math
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.models import mult
from bench.models.base import Inputs

MOSI = (mult.Params(), Inputs(text=(50, 768), audio=(50, 5), vision=(50, 20), aligned=True))
TINY = (mult.Params(width=8, heads=2), Inputs(text=(12, 16), audio=(12, 5), vision=(12, 6), aligned=True))
ROWS = (("MOSI aligned", *MOSI, 16), ("MOSI aligned", *MOSI, 32), ("tiny", *TINY, 4))


class Layer(nn.Module):
    """A pre-norm encoder layer on torch's own attention module."""

    def __init__(self, width: int, heads: int, dropout: float, params: mult.Params) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.params = params

    def forward(self, x: Tensor, keys: Tensor | None, values: Tensor | None, mask: Tensor) -> Tensor:
        p, training = self.params, self.training
        z = self.norms[0](x)
        k, v = (z, z) if keys is None else (self.norms[0](keys), self.norms[0](values))
        y = self.attention(z, k, v, attn_mask=mask, need_weights=False)[0]
        x = x + F.dropout(y, p.residual_dropout, training)
        y = F.dropout(self.fc1(self.norms[1](x)).relu(), p.relu_dropout, training)
        return x + F.dropout(self.fc2(y), p.residual_dropout, training)


class Encoder(nn.Module):
    """One tower."""

    def __init__(self, width: int, levels: int, dropout: float, params: mult.Params) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(width, params.heads, dropout, params) for _ in range(levels)])
        self.end = nn.LayerNorm(width)
        self.params = params

    def embed(self, x: Tensor) -> Tensor:
        return F.dropout(x * math.sqrt(x.shape[-1]), self.params.embed_dropout, self.training)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        keys, values = (None, None) if source is None else (self.embed(source), self.embed(source))
        t, s = x.shape[1], (x if source is None else source).shape[1]
        mask = torch.full((t, s), -math.inf).triu(1 + abs(s - t))
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x, keys, values, mask)
        return self.end(x)


class TowerByTower(nn.Module):
    """The same network, one encoder after the other, every layer in full."""

    def __init__(self, params: mult.Params, inputs: Inputs) -> None:
        super().__init__()
        d, self.params = params.width, params
        rates = {m: getattr(params, f"attention_dropout_{m}") for m in mult.MODALITIES}
        widths = {m: getattr(inputs, m)[1] for m in mult.MODALITIES}
        kernels = {m: getattr(params, f"{m}_kernel") for m in mult.MODALITIES}
        self.convolutions = nn.ModuleDict({m: nn.Conv1d(w, d, kernels[m], bias=False) for m, w in widths.items()})
        self.cross = nn.ModuleList([Encoder(d, params.levels, rates[s], params) for _, s in mult.TOWERS])
        self.memory = nn.ModuleList([Encoder(2 * d, max(params.levels, 3), rates["text"], params) for _ in range(3)])
        self.head1, self.head2, self.out = nn.Linear(6 * d, 6 * d), nn.Linear(6 * d, 6 * d), nn.Linear(6 * d, 1)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = {**batch, "text": F.dropout(batch["text"], self.params.text_dropout, self.training)}
        x = {m: conv(x[m].transpose(1, 2)).transpose(1, 2) for m, conv in self.convolutions.items()}
        crossed = [tower(x[t], x[s]) for tower, (t, s) in zip(self.cross, mult.TOWERS, strict=True)]
        last = [
            memory(torch.cat(crossed[2 * k : 2 * k + 2], -1))[:, -1] for k, memory in enumerate(self.memory)
        ]
        h = torch.cat(last, -1)
        y = F.dropout(self.head1(h).relu(), self.params.output_dropout, self.training)
        return self.out(self.head2(y) + h).squeeze(-1)

    @torch.no_grad()
    def copy_from(self, model: mult.MulT) -> None:
        """Take the weights of the stacked model."""
        for m, conv in self.convolutions.items():
            conv.weight.copy_(model.convolutions[m].weight)
        for name in ("head1", "head2", "out"):
            getattr(self, name).load_state_dict(getattr(model, name).state_dict())
        for towers, encoders in ((model.cross, self.cross), (model.memory, self.memory)):
            for i, encoder in enumerate(encoders):
                for j, layer in enumerate(encoder.layers):
                    attention = layer.attention
                    places = {
                        "qkv": (attention.in_proj_weight, attention.in_proj_bias),
                        "out": (attention.out_proj.weight, attention.out_proj.bias),
                        "fc1": (layer.fc1.weight, layer.fc1.bias),
                        "fc2": (layer.fc2.weight, layer.fc2.bias),
                    }
                    for name, (weight, bias) in places.items():
                        weight.copy_(getattr(towers, f"{name}_weight")[i, j])
                        bias.copy_(getattr(towers, f"{name}_bias")[i, j])


def batch_of(inputs: Inputs, size: int) -> dict[str, Tensor]:
    shapes = {m: getattr(inputs, m) for m in mult.MODALITIES}
    return {m: torch.randn(size, *shape) for m, shape in shapes.items()} | {"label": torch.randn(size)}


def measure(name: str, params: mult.Params, inputs: Inputs, size: int, steps: int) -> dict[str, float | str]:
    """Milliseconds of CPU time per training step of both models, alternating."""
    torch.manual_seed(1111)
    stacked, naive = mult.Model(params, inputs), TowerByTower(params, inputs)
    naive.copy_from(stacked)
    batch = batch_of(inputs, size)
    calls = {"tower_by_tower": (naive, lambda: naive(batch)), "stacked": (stacked, lambda: stacked(batch).prediction)}
    with torch.no_grad():
        naive.eval(), stacked.eval()
        gap = float((naive(batch) - stacked(batch).prediction).abs().max())
    assert gap < 1e-5, f"the two models differ by {gap}"
    optimisers = {k: torch.optim.Adam(m.train().parameters(), lr=1e-4) for k, (m, _) in calls.items()}
    times: dict[str, list[float]] = {k: [] for k in calls}
    for step in range(steps + 2):  # the first two warm up
        for call, (_, forward) in calls.items():
            start = time.process_time()
            optimisers[call].zero_grad()
            F.l1_loss(forward(), batch["label"]).backward()
            optimisers[call].step()
            if step > 1:
                times[call].append(1e3 * (time.process_time() - start))
    row = {"sizes": name, "batch": size, "steps": steps, "largest_difference": gap}
    for call, values in times.items():
        row |= {f"{call}_ms": round(statistics.median(values), 1), f"{call}_fastest_ms": round(min(values), 1)}
    row["speedup"] = round(row["tower_by_tower_ms"] / row["stacked_ms"], 2)
    return row


def main() -> None:
    torch.set_num_threads(1)
    rows = [measure(*row, steps=20) for row in ROWS]
    machine = {"machine": "2-core CPU", "threads": 1, "torch": torch.__version__, "python": platform.python_version()}
    Path(__file__).with_suffix(".json").write_text(json.dumps({**machine, "rows": rows}, indent=2) + "\n")
    for r in rows:
        times = f"tower by tower {r['tower_by_tower_ms']:.0f} ms, stacked {r['stacked_ms']:.0f} ms"
        print(f"{r['sizes']}, batch {r['batch']}: {times}, {r['speedup']:.2f} times as fast")


if __name__ == "__main__":
    main()
