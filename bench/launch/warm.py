"""Warm starts of CPU workers: one process imports torch once, and every worker is a fork of it.

The nursery is a child of this process with a single thread; it imports what every training needs and waits. A worker is
forked twice, so that its parent ends at once and it becomes a child of this process: this one hears of its end and what
killed it, and the kernel ends it when this one dies, exactly as with a worker that was started afresh (process.py). It
gets the environment, the paths and the terminal that this process has by then. The nursery is kept for as long as this
process lives, so that the rounds of `bench tune` and a script's next run find it warm. Where any of this cannot be had
(another system than Linux, a library that starts threads when it is imported) workers start afresh.
"""

import atexit
import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from bench.interpreter import command

_START = "from bench.launch.process import serve; from bench.launch.warm import nurse; nurse(int(sys.argv[1]), int(sys.argv[2]), serve)"
_PARENT_DIED, _SUBREAPER = 1, 36  # prctl: a signal then; orphans below this process become its children
_PATIENCE = 120.0  # seconds in which the nursery must have imported everything
_lock = threading.Lock()
_nursery: "Nursery | None" = None
enabled = sys.platform.startswith("linux")


class Forked:
    """A worker's process, with the part of subprocess.Popen's interface that launchers use."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, None

    def poll(self) -> int | None:
        """Its exit code, negative for the signal that killed it; None while it lives."""
        return self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended. Raises subprocess.TimeoutExpired where that takes longer."""
        if timeout is None:
            return self._reap(0)
        end, pause = time.monotonic() + timeout, 0.001
        while self.poll() is None:
            if time.monotonic() >= end:
                raise subprocess.TimeoutExpired("worker", timeout)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _reap(self, how: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, how)
            except ChildProcessError:  # somebody else has waited for it
                self.returncode = 0
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


class Nursery:
    """This process's end."""

    def __init__(self, env: dict[str, str]) -> None:
        self.socket, theirs = socket.socketpair()
        self.owner = os.getpid()
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process = subprocess.Popen(
                command(_START, str(theirs.fileno()), str(os.getpid())), env=env,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
            theirs.close()
        self.socket.settimeout(_PATIENCE)

    def fork(self, task_socket: socket.socket, env: dict[str, str], out: int, err: int) -> Forked:
        """A worker that is served by a socket. Raises OSError or EOFError where the nursery does not answer."""
        request = json.dumps({"env": env, "path": sys.path, "cwd": os.getcwd(), "parent": os.getpid()}).encode()
        with _reaping():
            socket.send_fds(self.socket, [struct.pack("!I", len(request))], [task_socket.fileno(), out, err])
            self.socket.sendall(request)
            (pid,) = struct.unpack("!i", _exactly(self.socket, 4))
        if pid <= 0:
            raise OSError("the nursery could not fork")
        return Forked(pid)

    def end(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()


def start(task_socket: socket.socket, env: dict[str, str], out: int, err: int) -> Forked | None:
    """A worker, forked from this process's nursery; None where there can be none: start it afresh."""
    global _nursery, enabled
    with _lock:
        if not enabled:
            return None
        if _nursery is not None and (_nursery.owner != os.getpid() or _nursery.process.poll() is not None):
            end()  # it was killed, or this process is a fork of the one that has it
        try:
            _nursery = _nursery or Nursery(env)
            return _nursery.fork(task_socket, env, out, err)
        except (OSError, EOFError, ValueError):
            end()
            enabled = False
            return None
        except BaseException:  # Ctrl-C: its answer would be taken for that to the next request
            end()
            raise


def prepare(env: dict[str, str]) -> None:
    """Begin to warm up, where that is possible: workers will be wanted soon."""
    global _nursery
    with _lock, contextlib.suppress(OSError):
        if enabled and _nursery is None:
            _nursery = Nursery(env)


def die_with(parent: int) -> None:
    """End when the process that is this one's parent does, however that ends."""
    if sys.platform.startswith("linux"):
        try:
            ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)
        except (OSError, AttributeError):
            pass
    if os.getppid() != parent:  # it died before that took hold
        os._exit(0)


def end() -> None:
    """Let go of the nursery; workers live on."""
    global _nursery
    if _nursery is not None and _nursery.owner == os.getpid():
        _nursery.end()
    _nursery = None


atexit.register(end)


@contextlib.contextmanager
def _reaping():
    """What is orphaned below this process meanwhile becomes its child."""
    libc, before = ctypes.CDLL(None, use_errno=True), ctypes.c_int()
    libc.prctl(_SUBREAPER + 1, ctypes.byref(before))
    if libc.prctl(_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this process cannot adopt")
    try:
        yield
    finally:
        libc.prctl(_SUBREAPER, before.value, 0, 0, 0)


def _exactly(s: socket.socket, n: int) -> bytes:
    found = b""
    while len(found) < n:
        more = s.recv(n - len(found))
        if not more:
            raise EOFError
        found += more
    return found


# --- the nursery's end ---------------------------------------------------------------------------------------------

Serve = Callable[[list[int], int], None]  # a worker's work: its sockets, the process that it must not survive


def nurse(fd: int, parent: int, serve: Serve) -> None:
    """Import what trainings need, then fork a worker for every request until the launcher is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    here = socket.socket(fileno=fd)
    _preload()
    if len(os.listdir("/proc/self/task")) > 1:
        os._exit(3)  # a fork would have one thread of several
    gc.collect()
    gc.freeze()  # what is here is shared: a collection in a worker does not touch it
    while True:
        data, fds = _request(here)
        here.sendall(struct.pack("!i", _fork(data, fds, here, serve)))
        for f in fds:
            os.close(f)


def _preload() -> None:
    import pandas  # noqa: F401
    import torch
    import torch._dynamo  # noqa: F401 - the first step of an optimiser imports it

    import bench.job  # noqa: F401
    import bench.launch.memory  # noqa: F401

    torch.set_num_threads(1)


def _request(here: socket.socket) -> tuple[dict[str, Any], list[int]]:
    try:
        size, fds, _, _ = socket.recv_fds(here, 4, 3)
        size += _exactly(here, 4 - len(size)) if size else b""
        return json.loads(_exactly(here, struct.unpack("!I", size)[0])), fds
    except (EOFError, OSError, struct.error):
        os._exit(0)


def _fork(request: dict[str, Any], fds: list[int], here: socket.socket, serve: Serve) -> int:
    """Fork a worker whose parent ends at once; its process id, or -1."""
    listen, tell = os.pipe()
    try:
        between = os.fork()
    except OSError:
        os.close(listen)
        os.close(tell)
        return -1
    if between == 0:
        try:
            mine = os.getpid()
            worker = os.fork()
            if worker:
                os.write(tell, struct.pack("!i", worker))
                os._exit(0)
            os.close(listen)
            os.close(tell)
            here.close()
            _become_worker(request, fds, mine, serve)
        finally:
            os._exit(1)
    os.close(tell)
    answer = os.read(listen, 4)
    os.close(listen)
    os.waitpid(between, 0)
    return struct.unpack("!i", answer)[0] if len(answer) == 4 else -1


def _become_worker(request: dict[str, Any], fds: list[int], between: int, serve: Serve) -> None:
    while os.getppid() == between:  # it is about to end
        time.sleep(0.0005)
    task_socket, out, err = fds
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:] = request["path"]
    with contextlib.suppress(OSError):
        os.chdir(request["cwd"])
    serve([task_socket], request["parent"])
