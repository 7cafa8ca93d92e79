"""Work shared out over processes, one task at a time, such that a process that a task breaks (a fault of the device makes
it unusable) costs no other task: it is replaced."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from bench.launch.worker import GPU_BROKEN


def _broken(found: Any) -> bool:
    """Whether a process is of no use after what came out of it."""
    return any(w in str(found) for w in GPU_BROKEN)


def _serve(connection: Connection, begin: Callable[[], None], work: Callable[[Any], Any]) -> None:
    begin()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        found = work(task)
        connection.send(found)
        if _broken(found):
            return


def shared(
    tasks: Sequence[Any], work: Callable[[Any], Any], begin: Callable[[], None], processes: int, left: Callable[[], float],
) -> Iterator[tuple[Any, Any]]:
    """(task, what `work` returned) as they end; a string where the process died, or the time was over. `begin` is
    called once in every process."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many processes as cores, and each would take them all
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.func.__module__ if isinstance(work, partial) else work.__module__, "torch"])
    waiting = deque(tasks)
    under_way: dict[Connection, tuple[Any, Any]] = {}

    def start(connection: Connection | None = None, process: Any = None) -> None:
        if not waiting:
            if connection is not None:
                connection.close()
            return
        if connection is None:
            connection, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, begin, work), daemon=True)
            process.start()
            theirs.close()
        task = waiting.popleft()
        connection.send(task)
        under_way[connection] = (process, task)

    for _ in range(min(processes, len(tasks))):
        start()
    while under_way:
        ready = wait(list(under_way), max(left(), 0))
        if not ready:
            break
        for connection in ready:
            process, task = under_way.pop(connection)
            try:
                found = connection.recv()
            except (EOFError, OSError):
                process.join(5)
                yield task, f"its process died ({process.exitcode})"
                start()
                continue
            yield task, found
            start() if _broken(found) else start(connection, process)
    for process, task in under_way.values():
        process.kill()
        yield task, "skipped: out of time"
    for task in waiting:
        yield task, "skipped: out of time"
