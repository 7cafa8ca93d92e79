"""Progress with an ETA: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence

from bench.launch.worker import Outcome
from bench.matrix import Job
from bench.terminal.console import clock


class Progress:
    """Feed it outcomes. `expected`: config id -> seconds; corrected by what the finished jobs really took."""

    def __init__(self, jobs: Sequence[Job], workers: int, expected: Mapping[str, float]) -> None:
        self.total, self.workers, self.expected = len(jobs), max(workers, 1), dict(expected)
        self.open = {j.id: self.expected.get(j.config.id, 0.0) for j in jobs}
        self.ahead = sum(self.open.values())  # expected seconds of the open jobs
        self.done = self.failed = 0
        self.began = time.perf_counter()
        self.took = self.guessed = 0.0
        self.bar = None
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[eta]}", markup=False),
            )
            self.bar.start()
            self.task = self.bar.add_task("jobs", total=self.total, eta="")

    def eta(self) -> float:
        """Seconds left: expected work of the open jobs, scaled by how the finished ones compared, over the workers."""
        scale = self.took / self.guessed if self.guessed else 1.0
        return scale * max(self.ahead, 0.0) / self.workers

    def __call__(self, outcome: Outcome) -> None:
        expected = self.open.pop(outcome.job.id, None)
        if expected is not None:
            self.ahead -= expected
            if outcome.status == "done" and outcome.seconds:
                self.took += outcome.seconds
                self.guessed += expected
        self.done += outcome.status == "done"
        self.failed += outcome.status == "failed"
        c = outcome.job.config
        line = f"{outcome.status} {c.dataset} {c.backbone}+{c.mixer} seed {outcome.job.seed} in {clock(outcome.seconds)}"
        if outcome.error:
            line += f": {outcome.error}"
        if self.bar is not None:
            self.bar.update(self.task, advance=1, eta=f"{self.failed} failed, {clock(self.eta())} left")
            if outcome.status == "failed":
                self.bar.console.print(line, markup=False, highlight=False)
        else:
            print(f"[{self.done + self.failed}/{self.total}] {line}; about {clock(self.eta())} left", flush=True)

    def say(self, line: str) -> None:
        """A line between the outcomes."""
        if self.bar is not None:
            self.bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
