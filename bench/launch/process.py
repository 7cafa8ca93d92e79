"""One worker process of this machine: a fresh interpreter that is sent tasks and sends outcomes back, one at a time.

It ends with its parent, however that ends: the kernel kills it (Linux), and the end of the pipe between them tells it so
everywhere. A worker that dies says by its exit what killed it, so a crash is charged to the job that it was running.
"""

import contextlib
import copy
import ctypes
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from bench.interpreter import command
from bench.launch import warm
from bench.launch.worker import Outcome, Task, run_task

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_PR_SET_NAME = 15
_START = "from bench.launch.process import serve; serve([int(n) for n in sys.argv[1].split(chr(44))], int(sys.argv[2]))"
_STARTUP = 120.0  # seconds that a worker may take for what comes before a job's time limit begins: imports, the data file
_GRACE = 10.0  # seconds past a limit after which a worker that does not answer is killed


class Worker:
    """The launcher's end. `task` is what it is running, None while it is idle. `seats`: of a process that runs several
    tasks at once (company.py) this is the first, and `others` are the rest; they live and die together."""

    def __init__(self, device: str, seats: int = 1, fresh: bool = False) -> None:
        """fresh: in an interpreter of its own in any case; else a worker on the CPU is forked from a warm one (warm.py)."""
        self.device, self.task, self.deadline = device, None, None
        pairs = [socket.socketpair() for _ in range(seats)]
        numbers = ",".join(str(theirs.fileno()) for _, theirs in pairs)
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": device, **({} if device else dict.fromkeys(_ONE_THREAD, "1"))}
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is the launcher's; a child inherits this
        try:
            self.process: Any = None if fresh or device or seats > 1 else _forked(pairs[0][1], env)
            self.process = self.process or subprocess.Popen(
                command(_START, numbers, str(os.getpid())),
                stdin=subprocess.DEVNULL, stdout=sys.__stderr__.fileno() if _usable(sys.__stderr__) else subprocess.DEVNULL,
                env=env, pass_fds=[theirs.fileno() for _, theirs in pairs],
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
            for _, theirs in pairs:
                theirs.close()
        self.connection, *rest = (Connection(ours.detach()) for ours, _ in pairs)
        self.others = [self._seat(c) for c in rest]

    def _seat(self, connection: Connection) -> "Worker":
        seat = copy.copy(self)
        seat.connection, seat.others = connection, []
        return seat

    def send(self, task: Task) -> None:
        """Start a task. OSError where the worker is dead."""
        self.task = task
        self.deadline = None if task.timeout is None else time.monotonic() + _STARTUP + task.timeout
        self.connection.send(task)

    def receive(self) -> Outcome | None:
        """The outcome of its task, or None for a message that is none. EOFError or OSError where the worker has died."""
        message = self.connection.recv()
        if isinstance(message, Outcome):
            self.task = self.deadline = None
            return message
        timeout = self.task and self.task.timeout
        if timeout is not None:  # a section under the time limit began (its seconds) or ended (None)
            self.deadline = time.monotonic() + (timeout + _STARTUP if message is None else message + _GRACE)
        return None

    def overdue(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def end(self) -> str:
        """Kill it, wait for it, and say what ended it."""
        code = self.process.poll()
        if code is None:
            try:  # one whose pipe broke is about to end by itself, and knows why
                code = self.process.wait(0 if self.task is None or self.overdue() else 1)
            except subprocess.TimeoutExpired:
                self.process.kill()
                code = self.process.wait()
        self.connection.close()
        if code >= 0:
            return f"ended with code {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def kill(self) -> None:
        self.process.kill()


def _forked(theirs: socket.socket, env: dict[str, str]) -> Any:
    """A worker from the nursery, which writes where one that is started afresh does; None where there is none."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        err = sys.__stderr__.fileno() if _usable(sys.__stderr__) else nowhere
        return warm.start(theirs, env, err, err)
    finally:
        os.close(nowhere)


def prepare() -> None:
    """CPU workers will be wanted soon: warm up meanwhile."""
    warm.prepare({**os.environ, "CUDA_VISIBLE_DEVICES": "", **dict.fromkeys(_ONE_THREAD, "1")})


def _usable(stream: object) -> bool:
    try:
        os.fstat(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return True


def serve(fds: list[int], parent: int) -> None:
    """The worker's end: run what is sent until the launcher is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm.die_with(parent)
    _name_process()
    if len(fds) > 1:
        from bench.launch import company

        company.serve([Connection(fd) for fd in fds], os.environ["CUDA_VISIBLE_DEVICES"])
        os._exit(0)
    connection, tasks = Connection(fds[0]), queue.SimpleQueue()

    def listen() -> None:
        while True:
            try:
                tasks.put(connection.recv())
            except (EOFError, OSError):
                os._exit(0)  # the launcher is gone, and nobody waits for what this process is doing

    threading.Thread(target=listen, daemon=True).start()
    while True:
        outcome = run_task(tasks.get(), connection.send)
        try:
            connection.send(outcome)
        except OSError:
            os._exit(0)
        if outcome.spent:
            os._exit(0)


def _name_process() -> None:
    """What `ps -o comm` calls a worker, whether it was started or forked."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_NAME, b"bench-worker", 0, 0, 0)
