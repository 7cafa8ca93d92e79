"""TensorBoard event files of finished jobs (`bench run --tensorboard`): the curves of history.csv, and the test split's
values at the selected epoch. Needs tensorboard (with torch) or tensorboardX, which are optional."""

import importlib
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.matrix import Job
from bench.store import Damaged, Store


def _writer() -> type[Any]:
    """torch.utils.tensorboard's SummaryWriter, or tensorboardX's. Raises BenchError, in one line, where neither is here."""
    for module in ("torch.utils.tensorboard", "tensorboardX"):
        try:
            return importlib.import_module(module).SummaryWriter
        except Exception:  # noqa: BLE001, S112 - missing, or of a version that torch cannot use
            continue
    raise BenchError("--tensorboard needs tensorboard or tensorboardX, and neither is installed: pip install tensorboard")


class Events:
    """Writes <root>/<job folder>/events.out.tfevents.*, once per result."""

    def __init__(self, root: Path) -> None:
        self.root, self._writer = root, _writer()

    def write(self, store: Store, job: Job) -> bool:
        """Write a finished job's curves; whether there was anything new to write.

        train/<loss>, valid/<metric> and lr per epoch, test/<metric> at the selected epoch."""
        history, folder = store.history(job), self.root / job.folder
        try:
            metrics = store.metrics(job)
        except Damaged:
            metrics = None
        if metrics is None or history is None:
            return False
        made = max((p.stat().st_mtime for p in folder.glob("events.out.tfevents.*")), default=None)
        if made is not None and made >= (store.folder(job) / "metrics.json").stat().st_mtime:
            return False
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink(missing_ok=True)
        writer = self._writer(str(folder))
        try:
            for row in history.to_dict("records"):
                epoch = int(row.pop("epoch"))
                for name, value in row.items():
                    if value == value:  # NaN draws nothing
                        writer.add_scalar(_tag(str(name)), float(value), epoch)
            for name, value in metrics["test"].items():
                if value is not None:
                    writer.add_scalar(f"test/{name}", float(value), int(metrics["best_epoch"]))
        finally:
            writer.close()
        return True


def _tag(column: str) -> str:
    split, _, name = column.partition("_")
    return f"{split}/{name}" if split in ("train", "valid") and name else column
