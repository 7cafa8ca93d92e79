"""A trained job under corruptions of its test split (PowMix Figs 6 and 7): bench/data/corruption.

Settings: points, the names of the corruptions, one at a time; corruption, the version of the code that draws them.
"""

from dataclasses import replace

from bench.data.corruption import named, parse
from bench.job import corrupt
from bench.measure.spec import Values
from bench.measure.trained import Trained
from bench.metrics import evaluate
from bench.train.loop import predict, task_loss


def compute(t: Trained, settings: dict) -> Values:
    """{"<point>:<metric>": value} of the test split at every point, its loss among them."""
    parts = tuple(named(point) for point in settings["points"])
    fixed = parse(t.job.config.corruption)
    data = corrupt(t.job, t.data, t.data.dataset, t.model, replace(fixed, sweep=parts))
    label, numbers = data.labels("test"), {}
    for part in parts:
        with data.at(part.name):
            prediction = predict(t.model, data, "test")
        found = {**evaluate(prediction, label, t.parts.family), "loss": task_loss(prediction, label, t.protocol)}
        numbers |= {f"{part.name}:{metric}": value for metric, value in found.items()}
    return numbers, {}
