"""How steps reach the device: one after the other from Python, or replayed as CUDA graphs.

An engine is given named pieces of work (train/step.py, train/scores.py) and runs each of them. `Graphs` runs a name's
first `WARM` occurrences as they are, captures the next one and replays the capture from then on, so that warming up is
training too and nothing has to be put back. The name says everything that the host decided about the work: the same
name is the same sequence of kernels on the same addresses. The engine never changes a number: a graph launches the
kernels that eager execution launches, with the same draws.

Where a capture fails, all work runs eagerly from then on and `reason` says why: what was captured before was registered
with states of the generators that the failure has spoiled (`renew`), and is given up. One that ran out of memory is tried
again, once.
"""

import gc
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError

NAMES = ("auto", "graph", "eager")
WARM = 1  # runs of a piece of work before it is captured: libraries choose kernels and take their workspaces in them
Work = Callable[[], object]


def determinism(lenient: bool = False) -> None:
    """Deterministic operators in this process, or an error; lenient: a warning. Attention is deterministic on a GPU only
    where errors are asked for."""
    torch._C._set_deterministic_algorithms(True, warn_only=lenient)


class Eager:
    """Runs work as it comes."""

    name = "eager"
    graphs = False

    def __init__(self, device: torch.device | str = "cpu", reason: str = "") -> None:
        self.device, self.reason = torch.device(device), reason
        self.parameters: Sequence[Tensor] = ()
        self.lenient = False  # work may take an operation that has no deterministic form on its device

    def context(self) -> Any:
        """What a training's work must run under."""
        determinism(self.lenient)
        return nullcontext()

    def finish(self) -> None:
        """Wait for the work: what it left may be read outside of `context` from here on."""

    def run(self, key: Hashable, work: Work, generators: Sequence[torch.Generator] = ()) -> bool:
        """Run `work`; whether it was a replay, of which Python has seen nothing. generators: those that it draws from,
        beside the default one and the training's."""
        work()
        return False

    def facts(self) -> dict[str, Any]:
        """For env.json."""
        return {"engine": self.name, **({"engine_reason": self.reason} if self.reason else {})}


class Graphs(Eager):
    """CUDA graphs on a stream of their own. generators: those that the work draws from, beside the default one.
    parameters: what gradients hang on; set by the loop."""

    name = "graph"
    graphs = True

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator] = ()) -> None:
        super().__init__(device)
        self.stream = torch.cuda.Stream(device)
        self.generators = generators
        self.captured: dict[Hashable, Any] = {}
        self._seen: dict[Hashable, int] = {}
        self._pool: Any = None
        self._entered = self._starved = False

    @contextmanager
    def context(self) -> Iterator[None]:
        determinism(self.lenient)
        outside = torch.cuda.current_stream(self.device)
        if not self._entered:  # all that the work reads was made on its own stream, or waited for (bench/job.py: build_data)
            self.stream.wait_stream(outside)
            self._entered = True
        torch.cuda.set_stream(self.stream)
        try:
            yield
        finally:
            torch.cuda.set_stream(outside)

    def finish(self) -> None:
        self.stream.synchronize()  # streams of this kind wait for no other, nor is one waited for

    def run(self, key: Hashable, work: Work, generators: Sequence[torch.Generator] = ()) -> bool:
        graph = self.captured.get(key)
        if graph is not None:
            graph.replay()
            return True
        seen = self._seen[key] = self._seen.get(key, 0) + 1
        if seen <= WARM or self.reason:
            work()
            return False
        return self._first_replay(key, work, generators)

    def _first_replay(self, key: Hashable, work: Work, generators: Sequence[torch.Generator]) -> bool:
        waiting = [q.grad for q in self.parameters]
        drawing = self._drawing(generators)
        states = [g.get_state() for g in drawing]
        graph, starved = None, False
        try:
            graph = self._capture(work, generators)
        except Exception as e:  # noqa: BLE001 - whatever a capture does not allow
            for q, gradient in zip(self.parameters, waiting):
                q.grad = gradient
            for generator, state in zip(drawing, states):
                renew(generator, state)
            torch.cuda.synchronize(self.device)
            self.captured.clear()  # they would go on drawing from the states of before, and could not
            self._pool = None
            starved = isinstance(e, torch.OutOfMemoryError) and not self._starved
            if not starved:
                first = str(e).splitlines()[0] if str(e) else ""
                self.reason = f"{_name(key)} cannot be captured: {type(e).__name__}: {first}"[:300]
            if isinstance(e, BenchError):  # a time limit that struck here, or what is wrong with the work itself
                raise
        if graph is None:  # and what the error held of the work's tensors is gone
            if starved:  # once: what ended jobs have left behind cannot be given back within a capture
                self._starved = True
                torch.cuda.empty_cache()
            work()
            return False
        self.captured[key] = graph
        graph.replay()
        return True

    def _drawing(self, generators: Sequence[torch.Generator]) -> list[torch.Generator]:
        """What the work may draw from."""
        return [torch.cuda.default_generators[self.device.index or 0], *self.generators, *generators]

    def _capture(self, work: Work, generators: Sequence[torch.Generator]) -> Any:
        graph = torch.cuda.CUDAGraph()
        for generator in (*self.generators, *generators):
            graph.register_generator_state(generator)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        collecting = gc.isenabled()
        gc.disable()  # what is freed in a capture must be its own
        self.stream.synchronize()
        try:
            try:
                # other jobs of the process may go on meanwhile: only this thread's calls count as part of the capture
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                work()
            except BaseException:
                with suppress(Exception):  # the first error is the one that says something
                    graph.capture_end()
                leave_pool(self.device.index or 0, self._pool)
                raise
            try:
                graph.capture_end()
            except BaseException:
                leave_pool(self.device.index or 0, self._pool)
                raise
        finally:
            if collecting:
                gc.enable()
        return graph

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "engine": "eager" if self.reason else "graph", "graphs": len(self.captured)}


def renew(generator: torch.Generator, state: Tensor) -> None:
    """Give a generator of a GPU a new state of these contents: a capture that failed leaves the old one believing that it
    is still being captured, and every later draw from it would raise."""
    fresh = torch.Generator(generator.device)
    fresh.set_state(state)
    generator.graphsafe_set_state(fresh)


def leave_pool(device: int, pool: Any) -> None:
    """End a capture's hold of its memory pool where `capture_end` has failed before that: memory would go on being looked
    for there, and none of the process's caches could be emptied. Nothing where it came that far."""
    end = getattr(torch._C, "_cuda_endAllocateToPool", None) or getattr(torch._C, "_cuda_endAllocateCurrentStreamToPool", None)
    with suppress(Exception):
        end(device, pool)  # raises where the pool is not held
        torch._C._cuda_releasePool(device, pool)  # a graph that was never made does not give it back


def _name(key: Hashable) -> str:
    return str(key[0]) if isinstance(key, tuple) and key else str(key)


def choose(name: str, device: torch.device | str, generators: Sequence[torch.Generator] = ()) -> Eager:
    """The engine of a name on a device. "auto": graphs on a GPU, else eager. Raises BenchError where graphs are asked
    for and cannot be had."""
    device = torch.device(device)
    if name not in NAMES:
        raise BenchError(f"unknown engine '{name}'; known: {', '.join(NAMES)}")
    if name == "eager" or device.type != "cuda":
        if name == "graph":
            raise BenchError(f"--engine graph needs a CUDA GPU, and this job runs on {device.type}; leave --engine out")
        return Eager(device)
    if os.environ.get("CUDA_LAUNCH_BLOCKING") == "1" and name == "auto":
        return Eager(device, "CUDA_LAUNCH_BLOCKING is set")
    return Graphs(device, generators)


class Fetch:
    """Tensors on their way to the host, without waiting for them: `ready` asks, `arrays` waits."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._event = None
        if tensors and tensors[0].is_cuda:
            self._host = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
            for host, t in zip(self._host, tensors):
                host.copy_(t, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = list(tensors)

    def ready(self) -> bool:
        return self._event is None or self._event.query()

    def tensors(self) -> list[Tensor]:
        if self._event is not None:
            self._event.synchronize()
        return self._host
