"""Linear probes: how much of the label each frozen latent holds on its own (PowMix Fig. 5).

A probe is one linear layer on a latent, trained by Adam on the backbone's task loss in the backbone's batches, stopped
by the backbone's rule on the validation loss; its test metrics are those of the best epoch. A number is the mean over
`repeats` starts. Settings: lr, repeats, seed. Shapes: n rows, D width.
"""

import numpy as np
import torch
from torch import Tensor, nn

from bench.measure.latents import representations
from bench.measure.spec import Values
from bench.measure.trained import Trained
from bench.metrics import evaluate
from bench.mixers.sampling import modality_groups
from bench.train.loop import criterion, epoch_batches, task_loss
from bench.train.protocol import Protocol


def fit_probe(
    x: dict[str, Tensor], y: dict[str, np.ndarray], p: Protocol, lr: float, seed: int
) -> tuple[np.ndarray, int]:
    """Test predictions [n] float64 of one probe, and the epoch that was selected. x: split -> [n, D]; y: split -> [n]."""
    device = x["train"].device
    draw = torch.Generator().manual_seed(seed)
    head = nn.Linear(x["train"].shape[1], 1)
    for parameter in head.parameters():  # as nn.Linear starts, from a stream of its own
        nn.init.uniform_(parameter, -head.in_features**-0.5, head.in_features**-0.5, generator=draw)
    head = head.to(device)
    task, optimiser = criterion(p), torch.optim.Adam(head.parameters(), lr=lr)
    order = np.random.default_rng(seed)
    target = torch.from_numpy(y["train"].astype(np.float32)).to(device)
    best, best_epoch, prediction = float("inf"), 0, np.zeros(0)

    def predict(split: str) -> np.ndarray:
        with torch.no_grad():
            return head(x[split]).squeeze(1).cpu().numpy().astype(np.float64)

    for epoch in range(1, p.max_epochs + 1):
        for rows in epoch_batches(len(target), p, 1, order):
            picked = torch.from_numpy(rows).to(device)
            optimiser.zero_grad(set_to_none=True)
            task(head(x["train"][picked]).squeeze(1), target[picked]).backward()
            optimiser.step()
        loss = task_loss(predict("valid"), y["valid"], p)
        if loss < best - p.min_delta:
            best, best_epoch, prediction = loss, epoch, predict("test")
        if epoch - best_epoch >= p.patience:
            break
    return prediction, best_epoch


def compute(t: Trained, settings: dict) -> Values:
    """{"<modality>:<metric>": mean over the repeats} for every modality of the backbone."""
    names = list(modality_groups(t.model.latent_dims))
    splits = ("train", "valid", "test")
    x = {s: representations(t, s, names) for s in splits}
    y = {s: t.data.labels(s) for s in splits}
    numbers: dict[str, float] = {}
    for name in names:
        found = [
            evaluate(
                fit_probe({s: x[s][name] for s in splits}, y, t.protocol, settings["lr"], settings["seed"] + r)[0],
                y["test"], t.parts.family,
            )
            for r in range(settings["repeats"])
        ]
        numbers |= {f"{name}:{metric}": float(np.mean([f[metric] for f in found])) for metric in found[0]}
    return numbers, {}
