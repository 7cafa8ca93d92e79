"""Several jobs in one process, taking turns: how a GPU that one small model leaves idle is filled.

Every job's steps are captured as graphs on a stream of its own, so that a turn is one launch of some tens of
microseconds and the GPU works on all jobs at once; the data are on the device once (bench/job.py). A job's numbers do
not depend on its company: its draws come from a random state of its own, put in place before its turn (a captured step
remembers the state it was captured under), and nothing else is shared that a step writes to.

A fault on the device ends everybody in the process. Whoever runs companies runs those jobs again, each alone.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.errors import BenchError

MOST = 24  # jobs in one process: beyond that the host's launches are the limit


class _Random:
    """The random state of one member: of the CPU's default generator or, on a GPU, of that GPU's."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.init()
            self.own = torch.Generator(device).manual_seed(0)
        else:
            self.state = torch.get_rng_state()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        if self.device.type == "cuda":
            # the default generator draws from this member's state from here on; the state is shared, not copied
            torch.cuda.default_generators[self.device.index or 0].graphsafe_set_state(self.own)
            yield
        else:
            outside = torch.get_rng_state()
            torch.set_rng_state(self.state)
            try:
                yield
            finally:
                self.state = torch.get_rng_state()
                torch.set_rng_state(outside)


@dataclass
class Member:
    """A job under way. turns: as bench.job.running makes them; done: called with (result, error) at its end."""

    name: str
    turns: Generator[Any, None, Any]
    device: torch.device
    done: Callable[[Any, BaseException | None], None]
    deadline: float = math.inf  # by time.monotonic
    engine: Any = None
    random: _Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = _Random(self.device)

    def turn(self) -> bool:
        """Take one turn; whether the job goes on."""
        try:
            if self.engine is not None and time.monotonic() > self.deadline:
                from bench.job import JobTimeout

                with self.engine.context():
                    self.turns.throw(JobTimeout("ran past --timeout"))
            with self.random.in_place():
                if self.engine is None:
                    self.engine = next(self.turns)
                    return True
                with self.engine.context():
                    next(self.turns)
            return True
        except StopIteration as end:
            self.done(end.value, None)
        except Exception as e:  # noqa: BLE001 - a job's failure is its own
            self.done(None, e)
        return False


class Company:
    """Members that take turns. `more` gives the next job's member, or None; at most `size` are under way."""

    def __init__(self, more: Callable[[], Member | None], size: int) -> None:
        if size < 1:
            raise BenchError(f"a company has at least one member, got {size}")
        self._more, self.size = more, size
        self.members: list[Member] = []

    def run(self) -> None:
        """Until no job is left."""
        more = True
        while more or self.members:
            while more and len(self.members) < self.size:
                member = self._more()
                more = member is not None
                if member is not None:
                    self.members.append(member)
            self.members = [m for m in self.members if m.turn()]


def members(memory: int, of_one: int, busy: float) -> int:
    """How many jobs to put on a GPU: `memory` bytes free, `of_one` bytes that one more job takes, `busy` the share of
    the time that one job alone keeps the GPU at work. At most as many as keep it at work twice over, since the kernels
    of small models overlap, and nine tenths of the memory."""
    by_memory = int(0.9 * memory / max(of_one, 1))
    by_work = math.ceil(2 / min(max(busy, 0.01), 1.0)) if busy < 0.9 else 1
    return max(1, min(by_memory, by_work, MOST))
