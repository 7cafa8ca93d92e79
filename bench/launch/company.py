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
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from bench.errors import BenchError
from bench.train.turns import is_engine

MOST = 16  # jobs in one process: beyond that the host's launches are the limit


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
            default = torch.cuda.default_generators[self.device.index or 0]
            default.graphsafe_set_state(self.own)
            try:
                yield
            finally:
                self.own.graphsafe_set_state(default)  # another one, where a capture failed (train/engine.py: renew)
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
    random: _Random | None = None
    handed: bool = False  # the last turn handed a step to the device
    waits: Any = None  # for what has to be ready before another turn is worth while

    def turn(self) -> bool:
        """Take one turn; whether the job goes on."""
        if self.waits is not None and time.monotonic() <= self.deadline:
            with suppress(RuntimeError):  # a fault of the device, which the job meets in its turn
                if not self.waits.ready():
                    return True
        try:
            self.random = self.random or _Random(self.device)
            with self.random.in_place(), self.engine.context() if self.engine else nullcontext():
                if self.engine is not None and time.monotonic() > self.deadline:
                    from bench.job import JobTimeout

                    self.deadline = math.inf
                    value = self.turns.throw(JobTimeout("ran past its time limit"))
                else:
                    value = next(self.turns)
            if is_engine(value):
                self.engine = value
            self.handed = value is True
            self.waits = value if hasattr(value, "ready") else None
            return True
        except StopIteration as end:
            self.done(end.value, None)
        except Exception as e:  # noqa: BLE001 - a job's failure is its own
            self.done(None, e)
        return False


class Company:
    """Members that take turns. `more` gives the next job's member, or None for no further one; at most `size` are under
    way."""

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


def serve(connections: list[Connection], device: str) -> None:
    """Run the tasks that come in by each connection, one at a time for each and all in company, and send back how they
    ended. Returns when every connection is closed. MOST connections, or more, on a GPU: as many tasks at once as
    `Admission` lets in."""
    under_way: dict[Connection, Member] = {}
    held: dict[Connection, Any] = {}  # tasks that have not been let in
    admission = Admission() if device and len(connections) >= MOST else None
    rounds, said = 0, time.monotonic()
    ended = False  # a member has, since the process gave back what ended ones had held
    while connections:
        rounds += 1
        if not under_way or rounds % _LISTEN == 0:
            listening = [c for c in connections if c not in under_way and c not in held]
            for c in wait(listening, 0 if under_way or held else None):
                try:
                    held[c] = c.recv()
                except (EOFError, OSError):
                    connections.remove(c)
            for c in list(held):
                if admission is not None and ended and scarce(len(under_way), *_memory()):
                    torch.cuda.empty_cache()  # a graph's memory serves no other job and stays with the process till then
                    ended = False
                if admission is None or admission.another(len(under_way), *_memory()):
                    under_way[c] = _member(c, held.pop(c), device)
            if time.monotonic() - said > _PATIENCE:
                said = time.monotonic()
                for c, task in held.items():
                    if task.timeout is not None:  # its time has not begun
                        c.send(None)
        for c, member in list(under_way.items()):
            if not member.turn():
                del under_way[c]
                ended = True
            elif admission is not None and member.handed:
                admission.turn()


def _memory() -> tuple[int, int]:
    """(free bytes of the GPU, bytes this process holds)."""
    return torch.cuda.mem_get_info()[0], torch.cuda.memory_reserved()


def scarce(under_way: int, free: int, used: int) -> bool:
    """Whether one more job like those under way may not fit. free, used: as of `_memory`."""
    return bool(under_way) and free < 1.3 * used / under_way


_LISTEN = 64  # rounds of turns between two looks at what has come in
_PATIENCE = 30.0  # seconds between two signs of life for a task that waits


def _member(connection: Connection, task: Any, device: str) -> Member:
    from bench.launch.worker import failure, task_turns

    def limit(seconds: float | None) -> None:
        connection.send(seconds)
        member.deadline = math.inf if seconds is None else time.monotonic() + seconds

    def done(outcome: Any, error: BaseException | None) -> None:
        connection.send(outcome or failure(task, error))  # an error outside of its turns: a device that is full or broken

    turns = task_turns(task, limit if task.timeout is not None else lambda seconds: None, signals=False)
    member = Member(task.job.id, turns, torch.device("cuda:0" if device else "cpu"), done)
    return member


class Admission:
    """Whether a GPU takes one more job, from what is measured: the memory that jobs take there, and the turns that all
    of them together got done in a second. The first FIRST come in at once (on an H200 eight small models pay, from 1.6
    times one alone for MulT to 3.3 for LMF: benchmarks/h200); then one at a time, as long as the last one
    raised the rate by a twentieth and there is memory for another. Once it is full it stays at that number."""

    FIRST, WINDOW, GAIN = 8, 1.5, 1.05

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self.full = clock, MOST
        self._best, self._turns, self._since, self._at = 0.0, 0, clock(), 0

    def turn(self) -> None:
        """A step was handed to the device."""
        self._turns += 1

    def another(self, under_way: int, free: int, used: int) -> bool:
        """free, used: bytes of the device; used by this process."""
        now = self._clock()
        if scarce(under_way, free, used):
            return False
        if under_way >= self.full:
            return False
        if under_way < self.FIRST:
            self._begin(now, under_way)
            return True
        if self._at != under_way:  # the company has changed: measure anew
            self._begin(now, under_way)
        if now - self._since < self.WINDOW:
            return False
        rate = self._turns / (now - self._since)
        if self._best and rate < self.GAIN * self._best:
            self.full = under_way
            return False
        self._best = rate
        self._begin(now, under_way + 1)
        return True

    def _begin(self, now: float, under_way: int) -> None:
        self._turns, self._since, self._at = 0, now, under_way
