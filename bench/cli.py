"""The command line: parses, calls, prints. Exit codes: 0 all well; 1 some jobs failed; 2 wrong usage or unusable
data, in one clear line; 130 after Ctrl-C."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import plugins
from bench.errors import BenchError
from bench.terminal.arguments import parser


def _plugins_first(arguments: Sequence[str]) -> list[str]:
    """--plugins may stand anywhere: it goes before the verb, where the parser knows it."""
    found, rest, given = [], [], iter(arguments)
    for a in given:
        if a == "--plugins":
            found += [a, next(given, "")]
        else:
            (found if a.startswith("--plugins=") else rest).append(a)
    return [*found, *rest]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = parser().parse_args(_plugins_first(sys.argv[1:] if arguments is None else arguments))
    args.given = list(sys.argv[1:] if arguments is None else arguments)
    verb = globals()[f"_{args.verb}"]  # every verb has a function of its name here
    if getattr(args, "allow_leak", False):
        os.environ["BENCH_ALLOW_LEAK"] = "1"  # workers inherit it
    try:
        for folder in args.plugins:
            plugins.use(folder)
        if getattr(args, "dataset_from", None):
            _own_dataset(args)
        return verb(args)
    except BenchError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench: stopped; finished jobs are kept, the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        for line in plugins.problems():
            print(f"bench: plug-in left out: {line}", file=sys.stderr)


def _own_dataset(args: argparse.Namespace) -> None:
    """Make the user's own dataset known, here and in the workers, and say what it was taken for."""
    from bench.data import own

    os.environ[own.FROM] = str(args.dataset_from.resolve())
    found = own.register()
    args.data = args.data or args.dataset_from
    if found and not getattr(args, "json", False):
        print("\n".join(found.inferred), file=sys.stderr)


def _make_plan(args: argparse.Namespace, everything: bool = False):
    from bench import api

    return api.plan(
        args.artefacts, args.suite or ("real" if args.data else "quick"), args.data, args.results, args.seeds, args.only,
        args.settings, everything, args.variant, getattr(args, "baselines", False),
    )


def _list(args: argparse.Namespace) -> int:
    from bench.terminal import plans

    plans.print_list(_make_plan(args, everything=True))
    return 0


def _plan(args: argparse.Namespace) -> int:
    from bench.terminal import plans

    plan = _make_plan(args)
    if args.json:
        print(json.dumps(plans.as_json(plan), indent=1))
    else:
        plans.print_plan(plan)
    return 0


def _run(args: argparse.Namespace) -> int:
    from bench.terminal.console import steady_output

    if args.detach and not args.dry_run:
        return _detached(args)

    with steady_output():
        return _run_jobs(args)


def _run_jobs(args: argparse.Namespace) -> int:
    from bench import api
    from bench.store import Store
    from bench.terminal import plans
    from bench.terminal.console import clock
    from bench.terminal.progress import Progress

    if args.timeout is not None:
        api.check_timeout(args.timeout)
    gpus, slots = _slots(args)
    executor = _executor(args, slots)
    plan = _make_plan(args)
    jobs = [*plan.todo(args.retry_failed, args.timeout), *plan.figures.to_measure(args.retry_failed)]
    plans.print_plan(plan, brief=True)
    if args.dry_run:
        for j in jobs:
            print(f"would run {j.folder}" + "".join(f", {m.stem}" for m in plan.figures.lacking(j, args.retry_failed)))
        return 0
    if not plan.jobs and any(e.seeds for e in plan.experiments):
        raise BenchError("nothing to run: no job matches")
    if not jobs and not plan.count("done") and plan.blocked:
        raise BenchError(next(iter(plan.blocked.values())))
    device = "gpu" if gpus else "cpu"
    if jobs:
        training = [*plan.todo(args.retry_failed, args.timeout), *plan.figures.to_retrain(args.retry_failed)]
        at_once = 4 * len(gpus) if gpus and args.per_gpu == "auto" else executor.workers  # that many do not share for free
        seconds = plan.remaining_seconds(training, device) / at_once
        where = f"places on GPU {', '.join(map(str, gpus))} (--gpus none: on the CPU)" if gpus else "workers"
        print(f"{len(jobs)} jobs on {executor.workers} {where}, about {clock(seconds)}", flush=True)
    progress = Progress(jobs, executor.workers, plan.seconds[device])
    try:
        found = api.run(
            plan, args.results, args.data, slots, args.seeds, args.timeout, args.retry_failed, args.fail_fast,
            args.keep_checkpoints, progress, progress.say, executor, ["bench", *args.given],
            args.engine,
        )
    finally:
        progress.close()
    if not plan.jobs:
        print("nothing is trained for this; `bench report` draws it")
        return 0
    plans.print_failures(found.failed, Store(args.results), found.unmeasured, found.errors)
    done = sum(o.status == "done" for o in found.outcomes)
    line = f"{done} done, {len(found.failed) + len(found.unmeasured)} failed, {plan.count('done')} were done before"
    print(line + (f", {len(found.unrun)} not run" if found.unrun else ""))
    for line in plan.unusable:
        print(f"bench: {line}", file=sys.stderr)
    return 1 if not found.ok else 2 if plan.unusable else 0


def _detached(args: argparse.Namespace) -> int:
    from bench.terminal.status import detach

    return detach([a for a in args.given if a != "--detach"], args.results)


def _executor(args: argparse.Namespace, slots: tuple[str, ...]):
    """Where the jobs of a verb run."""
    from bench.launch.cluster import QUEUES, read_queue
    from bench.launch.executor import Executor

    flags = {"partition": args.partition, "time": args.time, "gpus": args.gpus_per_worker, "workers": args.max_workers}
    queue = read_queue(args.executor, args.cluster_config, flags) if args.executor in QUEUES else None
    if queue is None and (args.cluster_config or any(flags.values())):
        raise BenchError(f"--cluster-config and its flags go with --executor {', '.join(QUEUES)}")
    return Executor(args.executor, slots, args.scheduler, queue, args.results_on == "caller", args.send_data)


def _status(args: argparse.Namespace) -> int:
    from bench.terminal.status import print_status, watch_status

    if not args.results.is_dir():
        raise BenchError(f"no results in {args.results}; `bench run` makes them, --results names another folder")
    watch_status(args.results, args.watch) if args.watch else print_status(args.results)
    return 0


def _cancel(args: argparse.Namespace) -> int:
    from bench.launch.sessions import cancel
    from bench.store import Store

    for s in cancel(Store(args.results), args.run):
        print(f"asked {s.id} ({s.host.partition('/')[0]}) to stop; what was finished is kept, the same command continues")
    return 0


def _tune(args: argparse.Namespace) -> int:
    from bench import api
    from bench.terminal import trials
    from bench.terminal.progress import Progress

    if args.timeout is not None:
        api.check_timeout(args.timeout)
    if args.detach:
        return _detached(args)
    _, slots = _slots(args)
    executor = _executor(args, slots)
    args.seeds = args.seeds or 1
    plan = _make_plan(args)
    n = len({j.config for j in plan.jobs} - {j.config for j in plan.jobs if j.config.id in plan.blocked})
    print(f"{n} cells x {args.budget} trials x {args.tuning_seeds} tuning seed{'s' * (args.tuning_seeds > 1)} on {executor.workers} workers", flush=True)
    trails = api.tune(
        plan, args.results, args.data, args.budget, args.sampler, args.tuning_seeds, args.objective, slots, args.timeout,
        lambda jobs: Progress(jobs, executor.workers, trials.expected(jobs)), executor,
        ["bench", *args.given],
    )
    trials.print_trails(trails)
    return 0


def _slots(args: argparse.Namespace) -> tuple[list[int], tuple[str, ...]]:
    """The GPUs of --gpus, and one entry per worker."""
    from bench.launch.local import SEATS, device_slots

    gpus = _gpus(args.gpus)
    auto = SEATS if args.executor == "local" else 1  # elsewhere a place is a process
    per_gpu = auto if args.per_gpu == "auto" else args.per_gpu
    slots = device_slots(gpus, per_gpu, args.workers)
    if gpus and args.gpus != "auto" and not getattr(args, "dry_run", False):
        _check_gpus(gpus)
    return gpus, slots


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
        raise BenchError(f"--gpus {','.join(map(str, gpus))}: this machine has {n} usable GPU{'s' if n != 1 else ''}; --gpus none runs on the CPU")


def _report(args: argparse.Namespace) -> int:
    from bench import api

    if args.compare:
        from bench.report.compare import compare

        for folder in args.compare:
            if not folder.is_dir():
                raise BenchError(f"--compare {folder}: no such folder")
        print(compare(*args.compare, args.out or Path("reports/compare")))
        return 0
    if args.settings or args.variant:
        raise BenchError("report shows what was run: --variants shows all that ran with other settings, --only a part; --set belongs to `bench run`")
    what = (args.artefacts, args.results, args.suite, args.data, args.out)
    part = {"seeds": args.seeds, "only": args.only, "variants": args.variants, "split": args.split}
    print(api.watch(args.watch, *what, lambda line: print(line, flush=True), **part) if args.watch else api.report(*what, **part))
    return 0


def _show(args: argparse.Namespace) -> int:
    from bench.store import Store
    from bench.terminal.show import print_job

    print_job(Store(args.results), args.job)
    return 0


def _audit(args: argparse.Namespace) -> int:
    from bench.terminal.checks import print_audit

    print_audit(args.out)
    return 0


def _data(args: argparse.Namespace) -> int:
    if args.action == "check":
        from bench.terminal.checks import print_data_check

        return print_data_check(args.dir, args.json, args.html, args.quick)
    if args.action == "synth":
        from bench.data.tools import write_synthetic

        for path in write_synthetic(args.dir, [n for n in args.datasets.split(",") if n] or None, args.full):
            print(path)
        return 0
    if args.action == "convert":
        given = {m: f for m in ("text", "audio", "vision") if (f := getattr(args, f"{m}_from"))}
        if given:
            from bench.data.join import join_files

            print(join_files(args.input, args.output, given))
            return 0
        from bench.data.convert import convert_file

        print(convert_file(args.input, args.output, args.text))
        return 0
    from bench.data.encode import encode_file

    encode_file(args.input, args.output, args.encoder)
    print(args.output)
    return 0


def _predict(args: argparse.Namespace) -> int:
    from bench import api

    found = api.predict(args.job, args.data, args.results)
    text = found.to_csv(args.out, index=False, float_format="%.7g", lineterminator="\n")
    print(args.out if args.out else text, end="\n" if args.out else "")
    return 0


def _export(args: argparse.Namespace) -> int:
    from bench import api

    print(api.export(args.job, args.results, args.out))
    return 0


def _new(args: argparse.Namespace) -> int:
    from bench.scaffold import write

    for path in write(args.kind, args.name, args.folder):
        print(path)
    print(f"next: bench check {args.name} --plugins {args.folder}    (docs/extending.md)")
    return 0


def _check(args: argparse.Namespace) -> int:
    from bench.contract import check, kind_of

    wrong = 0
    for finding in check(kind_of(args.name), args.name):
        wrong += bool(finding.problem)
        print(f"{'-' if finding.problem else '+'} {finding.check}{': ' + finding.problem if finding.problem else ''}", flush=True)
    print(f"{args.name}: {wrong} of the checks failed" if wrong else f"{args.name} keeps the contract")
    return 1 if wrong else 0


def _verify(args: argparse.Namespace) -> int:
    from bench.terminal.checks import print_verified

    return print_verified(args.results, args.deep)


def _merge(args: argparse.Namespace) -> int:
    from bench.terminal.checks import print_merged

    return print_merged(args.into, args.others)


def _doctor(args: argparse.Namespace) -> int:
    from bench.terminal.checks import print_doctor

    return print_doctor(args.data)


if __name__ == "__main__":
    sys.exit(main())
