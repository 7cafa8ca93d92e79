"""The loss around a job's trained weights on a plane through them (MS-Mix Fig. 4).

Settings: normalise, vectors, seed (directions.py); split and samples (a fixed random subset, all where null); loss ("task",
the backbone's own criterion, or "mse", "l1", "bce"); range and points of the grid; radius of the circle and step of the
second differences. Networks are in evaluation mode. Rows of the grid are stored as they are done, and an interrupted
landscape goes on from there.
"""

import io
import math
from pathlib import Path

import numpy as np
import torch

from bench.errors import BenchError
from bench.measure.directions import directions, trained_parameters
from bench.measure.spec import Values
from bench.measure.surface import Surface
from bench.measure.trained import Trained
from bench.store import write_atomic
from bench.train.loop import criterion, evaluation_batches, predict
from bench.train.protocol import Protocol

ANGLES = 16  # points on the circle
_TOLERANCE = 1e-3  # relative; a checkpoint whose loss is further off is not that of the stored predictions


def task(settings: dict, p: Protocol):
    """The criterion that the settings name."""
    name = p.loss if settings["loss"] == "task" else settings["loss"]
    if name not in ("l1", "mse", "bce"):
        raise BenchError(f"a landscape's loss is task, mse, l1 or bce, not '{name}'")
    return criterion(Protocol(loss=name))


def surface(t: Trained, settings: dict, batched: bool = True) -> Surface:
    """The job's surface over the subset, in the directions of the settings."""
    rows = t.rows(settings["split"], settings["samples"], settings["seed"])
    batches = [t.data.batch(settings["split"], part) for part in evaluation_batches(t.model, rows)]
    weights = trained_parameters(t.model)
    first, second = directions(weights, settings["seed"], settings["normalise"], settings["vectors"])
    return Surface(t.model, batches, first, second, task(settings, t.protocol), batched=batched)


def centre(t: Trained, settings: dict) -> float:
    """Loss of the trained weights on the subset, as the job itself evaluates it. Raises BenchError where it is not that
    of the stored predictions."""
    split, loss = settings["split"], task(settings, t.protocol)
    rows = t.rows(split, settings["samples"], settings["seed"])
    label = torch.from_numpy(t.data.labels(split).astype(np.float64))[rows.cpu()]
    value = float(loss(torch.from_numpy(predict(t.model, t.data, split, rows)), label))
    stored = t.predictions.get(f"{split}_prediction")
    if stored is not None:
        expected = float(loss(torch.from_numpy(stored)[rows.cpu()], label))
        if not math.isclose(value, expected, rel_tol=_TOLERANCE, abs_tol=1e-9):
            raise BenchError(f"the kept weights give a {split} loss of {value:.6g}, the stored predictions {expected:.6g}: run the job again")
    return value


def compute(t: Trained, settings: dict, partial: Path | None = None) -> Values:
    """The grid, and how far the loss rises around the centre. `partial`: where finished rows are stored meanwhile."""
    offsets = np.linspace(*settings["range"], settings["points"])  # (P,)
    whole = surface(t, settings)
    middle = centre(t, settings)
    loss = np.full((len(offsets), len(offsets)), np.nan)
    done = _resume(partial, loss)
    for i in range(done, len(offsets)):
        points = torch.from_numpy(np.stack([np.full_like(offsets, offsets[i]), offsets], 1))
        loss[i] = whole.losses(points).numpy()
        if partial is not None:
            _save(partial, loss, i + 1)
    numbers = {"centre": middle, "loss_rise": float((loss - middle).mean()), **around(whole, middle, settings)}
    numbers["evaluations"] = loss.size + ANGLES + 5
    return numbers, {"alpha": offsets, "beta": offsets, "loss": loss}


def around(whole: Surface, middle: float, settings: dict) -> dict[str, float]:
    """rise_at_radius: mean rise over ANGLES points of a circle. curvature: mean of the second differences
    (L(h) - 2 L(0) + L(-h)) / h^2 along the two directions, h the step."""
    angle = torch.arange(ANGLES, dtype=torch.float64) * (2 * math.pi / ANGLES)
    circle = settings["radius"] * torch.stack([angle.cos(), angle.sin()], 1)  # (ANGLES, 2)
    cross = settings["step"] * torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    losses = whole.losses(torch.cat([circle, cross]))
    here, *arms = losses[ANGLES:].tolist()
    return {
        "rise_at_radius": float(losses[:ANGLES].mean()) - middle,
        "curvature": (sum(arms) - 4 * here) / (2 * settings["step"] ** 2),
    }


def _save(path: Path, loss: np.ndarray, rows: int) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, loss=loss, rows=rows)
    write_atomic(path, buffer.getvalue())


def _resume(path: Path | None, loss: np.ndarray) -> int:
    """Fill in the rows that an earlier attempt has finished; returns how many."""
    if path is None or not path.exists():
        return 0
    with np.load(path, allow_pickle=False) as f:
        if f["loss"].shape != loss.shape:
            return 0
        loss[:] = f["loss"]
        return int(f["rows"])
