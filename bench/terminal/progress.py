"""Progress from the first second: how many jobs are done, what is in training and in which epoch, how long it will take. A
bar and the jobs below it on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from bench.launch.sessions import Held, held
from bench.launch.worker import Outcome
from bench.matrix import Job
from bench.plural import count
from bench.settings import apart
from bench.store import Store
from bench.terminal.console import clock

LOOK = 1.0  # seconds between two looks at what is in training
QUIET = 60.0  # seconds without a word after which plain output says what is in training
_SHOWN = 6  # jobs in training that are shown


class Progress:
    """Feed it outcomes. `expected`: config id -> seconds; corrected by what the finished jobs really took. `store`: where
    the jobs are trained, to see how far they are."""

    def __init__(self, jobs: Sequence[Job], workers: int, expected: Mapping[str, float], store: Store | None = None) -> None:
        self.total, self.workers, self.expected = len(jobs), max(workers, 1), dict(expected)
        self.open = {j.id: self.expected.get(j.config.id, 0.0) for j in jobs}
        self.ahead = sum(self.open.values())  # expected seconds of the open jobs
        self.done = self.failed = 0
        self.began = self.heard = self.spoke = time.perf_counter()
        self.took = self.guessed = 0.0
        self.training: list[Held] = []
        self._store, self._over, self._lock = store, threading.Event(), threading.Lock()
        self._configs = dict.fromkeys(j.config for j in jobs)
        self._apart = apart(self._configs)
        self._told: set[str] = set()  # jobs whose beginning was told
        self._live = None
        if sys.stderr.isatty() and jobs:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(get_renderable=self.render, console=Console(stderr=True, highlight=False), refresh_per_second=2, transient=True)
            self._live.start()
        self._thread = threading.Thread(target=self._look, name="progress", daemon=True)
        if store is not None and jobs:
            self._thread.start()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def eta(self) -> float:
        """Seconds left: expected work of the open jobs, scaled by how the finished ones compared, over the workers, less
        what has passed since one ended."""
        scale = self.took / self.guessed if self.guessed else 1.0
        whole = scale * max(self.ahead, 0.0) / self.workers
        return max(whole - (time.perf_counter() - self.heard), 0.1 * whole, 1.0) if self.open else 0.0

    def add(self, jobs: Sequence[Job], expected: Mapping[str, float]) -> None:
        """More jobs, before the last one was heard to have ended."""
        with self._lock:
            self.total += len(jobs)
            self.expected |= expected
            self.open |= {j.id: expected.get(j.config.id, 0.0) for j in jobs}
            self.ahead += sum(expected.get(j.config.id, 0.0) for j in jobs)
            self._configs |= dict.fromkeys(j.config for j in jobs)
            self._apart = apart(self._configs)

    def __call__(self, outcome: Outcome) -> None:
        expected = self.open.pop(outcome.job.id, None)
        if expected is not None:
            self.ahead -= expected
            if outcome.status == "done" and outcome.seconds:
                self.took += outcome.seconds
                self.guessed += expected
        self.done += outcome.status == "done"
        self.failed += outcome.status == "failed"
        self.heard = time.perf_counter()
        c = outcome.job.config
        line = f"{outcome.status} {c.dataset} {c.backbone}+{c.mixer}{self._setting(c.id)} seed {outcome.job.seed} in {clock(outcome.seconds)}"
        if outcome.error:
            line += f": {outcome.error}"
        if self._live is None:
            self.say(f"[{self.done + self.failed}/{self.total}] {line}; about {clock(self.eta())} left")
        elif outcome.status == "failed":
            self.say(line)
        if not self.open:  # a search on a cluster has many rounds, each with a progress of its own
            self.close()

    def say(self, line: str) -> None:
        """A line between the outcomes."""
        with self._lock:
            self.spoke = time.perf_counter()
            if self._live is not None:
                self._live.console.print(line, markup=False, highlight=False)
            else:
                print(line, flush=True)

    def close(self) -> None:
        """Stop looking, and take the bar away."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        if self._live is not None:
            self._live.stop()
            self._live = None

    # --- what is in training -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        while not self._over.wait(LOOK):
            try:
                self.training = [h for h in held(self._store) if h.job_id in self.open] if self._store else []
            except OSError:  # a folder that is being moved: the next look finds it
                continue
            if self._live is None:
                self._tell()

    def _tell(self) -> None:
        """Without a terminal: the first jobs as they begin, and what goes on after a long silence."""
        new = [h for h in self.training if h.job_id not in self._told]
        first = not self._told
        self._told.update(h.job_id for h in new)
        if first and new:
            self.say(f"in training: {', '.join(map(self._name, new[:_SHOWN]))}; about {clock(self.eta())} left")
        elif self.training and time.perf_counter() - self.spoke > QUIET:
            self.say(f"[{self.done + self.failed}/{self.total}] {self._name(self.training[0])} {_where(self.training[0])}; about {clock(self.eta())} left")

    def _setting(self, config: str) -> str:
        return f" ({setting})" if (setting := self._apart.get(config)) else ""

    def _name(self, h: Held) -> str:
        config, _, seed = h.job_id.rpartition("-s")
        return f"{h.cell}{self._setting(config)} seed {seed}"

    def render(self):
        """The bar, and below it what is in training, each cut to the terminal's width."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        ended = self.done + self.failed
        head = Table.grid(padding=(0, 1), expand=False)
        head.add_row(
            ProgressBar(total=max(self.total, 1), completed=ended, width=24), Text(f"{ended}/{count(self.total, 'job')}", no_wrap=True),
            Text((f"{self.failed} failed, " if self.failed else "") + f"about {clock(self.eta())} left", no_wrap=True, overflow="ellipsis"),
        )
        lines = []
        if not self.training and not ended:
            passed = clock(time.perf_counter() - self.began)
            lines = [Text(f"  starting {count(min(self.workers, self.total), 'worker')} ({passed})", no_wrap=True, overflow="ellipsis", style="dim")]
        elif self.training:
            lines = [
                Text(f"  {self._name(h)}  {_where(h)}", no_wrap=True, overflow="ellipsis", style="dim")
                for h in self.training[:_SHOWN]
            ]
            if len(self.training) > _SHOWN:
                lines.append(Text(f"  and {len(self.training) - _SHOWN} more", style="dim"))
        return Group(head, *lines)


def _where(h: Held) -> str:
    return h.line if h.line.startswith("epoch") else "reading data"
