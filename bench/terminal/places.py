"""Where the jobs of a verb run, from its flags: GPUs and workers of this machine, or a cluster's."""

import argparse

from bench.errors import BenchError
from bench.plural import count


def executor(args: argparse.Namespace, slots: tuple[str, ...]):
    """Where the jobs of a verb run."""
    from bench.launch.cluster import QUEUES, read_queue
    from bench.launch.executor import Executor

    flags = {"partition": args.partition, "time": args.time, "gpus": args.gpus_per_worker, "workers": args.max_workers}
    queue = read_queue(args.executor, args.cluster_config, flags) if args.executor in QUEUES else None
    if queue is None and (args.cluster_config or any(flags.values())):
        raise BenchError(f"--cluster-config and its flags go with --executor {', '.join(QUEUES)}")
    return Executor(args.executor, slots, args.scheduler, queue, args.results_on == "caller", args.send_data)


def slots(args: argparse.Namespace) -> tuple[list[int], tuple[str, ...]]:
    """The GPUs of --gpus, and one entry per worker."""
    from bench.launch.local import SEATS, device_slots

    gpus = _gpus(args.gpus)
    auto = SEATS if args.executor == "local" else 1  # elsewhere a place is a process
    per_gpu = auto if args.per_gpu == "auto" else args.per_gpu
    found = device_slots(gpus, per_gpu, args.workers)
    if gpus and args.gpus != "auto" and not getattr(args, "dry_run", False):
        _check_gpus(gpus)
    return gpus, found


def _gpus(text: str) -> list[int]:
    """The GPUs that --gpus names: "auto" all of the machine, "none" none."""
    if text == "auto":
        from bench.environment import gpus

        return gpus()
    try:
        return [] if text in ("none", "") else [int(g) for g in text.split(",") if g]
    except ValueError:
        raise BenchError(f"--gpus takes numbers such as 0,1, or none, got '{text}'") from None


def _check_gpus(gpus: list[int]) -> None:
    import torch

    n = torch.cuda.device_count()
    if max(gpus) >= n:
        raise BenchError(f"--gpus {','.join(map(str, gpus))}: this machine has {count(n, 'usable GPU')}; --gpus none runs on the CPU")
