"""`bench run` and `bench tune` from their flags to their last line."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import api
from bench.errors import BenchError
from bench.launch.process import prepare
from bench.matrix import Job
from bench.plan import Plan
from bench.plural import count
from bench.store import Store
from bench.terminal import plans, trials
from bench.terminal.console import clock
from bench.terminal.places import executor as executor_of
from bench.terminal.places import slots as slots_of
from bench.terminal.progress import Progress
from bench.terminal.status import detach
from bench.terminal.streams import steady_output


def run(args: argparse.Namespace, plan_of) -> int:
    """Run what a plan lacks and say what happened; the exit code. `plan_of`: makes the plan of the flags."""
    if args.detach and not args.dry_run:
        return detach([a for a in args.given if a != "--detach"], args.results)
    with steady_output():
        return _run(args, plan_of)


def _run(args: argparse.Namespace, plan_of) -> int:
    if args.timeout is not None:
        api.check_timeout(args.timeout)
    events = None
    if args.tensorboard:
        from bench.events import Events  # says at once where no library writes them

        events = Events(Path(args.results) / "tensorboard")
    gpus, slots = slots_of(args)
    executor = executor_of(args, slots)
    if executor.name == "local" and not gpus and not args.dry_run:
        prepare()  # torch is imported there while this process plans
    plan = plan_of(args)
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
        where = f" on GPU {', '.join(map(str, gpus))} (--gpus none: on the CPU)" if gpus else ""
        print(f"{count(len(jobs), 'job')} on {count(executor.workers, 'place' if gpus else 'worker')}{where}, about {clock(seconds)}", flush=True)
    store, began = Store(args.results), time.perf_counter()
    with Progress(jobs, executor.workers, plan.seconds[device], store) as progress:
        def heard(outcome) -> None:
            progress(outcome)
            if events is not None and outcome.status == "done":
                events.write(store, outcome.job)

        found = api.run(
            plan, args.results, args.data, slots, args.seeds, args.timeout, args.retry_failed, args.fail_fast,
            args.keep_checkpoints, heard, progress.say, executor, ["bench", *args.given], args.engine,
        )
    if not plan.jobs:
        print("nothing is trained for this; `bench report` draws it")
        return 0
    plans.print_failures(found.failed, store, found.unmeasured, found.errors)
    done = sum(o.status == "done" for o in found.outcomes)
    line = f"{done} done, {len(found.failed) + len(found.unmeasured)} failed, {plan.count('done')} were done before"
    print(line + (f", {len(found.unrun)} not run" if found.unrun else "") + (f"; took {clock(time.perf_counter() - began)}" if jobs else ""), flush=True)  # a report takes a while
    for line in plan.unusable:
        print(f"bench: {line}", file=sys.stderr)
    if events is not None:
        for job in plan.jobs:
            events.write(store, job)
        print(f"curves: tensorboard --logdir {shlex.quote(str(events.root))}")
    _next(args, plan, found)
    return 1 if not found.ok else 2 if plan.unusable else 0


def _next(args: argparse.Namespace, plan: Plan, found: api.Finished) -> None:
    """The last lines: where the report is, what can be done next."""
    flags = "" if args.results == Path("results") else f" --results {shlex.quote(str(args.results))}"
    if found.unrun:
        print("next: the same command goes on with what was not run")
    if n := sum(j.config.id in plan.blocked and plan.status[j.id] != "done" for j in plan.jobs):
        print(f"{count(n, 'job')} cannot run here; `bench doctor` says what they need")
    if args.report and any(plan.status[j.id] == "done" for j in plan.jobs) | any(o.status == "done" for o in found.outcomes):
        page = api.report(args.artefacts, args.results, plan.suite.name, args.data, variants=bool(args.settings))
        print(f"report: {page} (`bench open` shows it)")
    elif not args.report:
        print(f"next: bench report --suite {plan.suite.name}{flags} renders tables and figures, then bench open")


def tune(args: argparse.Namespace, plan_of) -> int:
    """Search the settings of a plan's cells and print what was found; the exit code."""
    from bench.spaces import undeclared

    if args.timeout is not None:
        api.check_timeout(args.timeout)
    if args.detach:
        return detach([a for a in args.given if a != "--detach"], args.results)
    _, slots = slots_of(args)
    executor = executor_of(args, slots)
    args.seeds = args.seeds or 1
    plan = plan_of(args)
    cells = dict.fromkeys(j.config for j in plan.jobs if j.config.id not in plan.blocked)
    if line := undeclared(cells):
        print(f"{line} (docs/extending.md)")
    print(f"{count(len(cells), 'cell')} x {count(args.budget, 'trial')} x {count(args.tuning_seeds, 'tuning seed')} on {count(executor.workers, 'worker')}", flush=True)
    store = Store(args.results)
    progress: Progress | None = None

    def shown(jobs: Sequence[Job]) -> Progress:
        nonlocal progress
        if progress is None or not progress.open:
            progress = Progress(jobs, executor.workers, trials.expected(jobs), store)
        else:
            progress.add(jobs, trials.expected(jobs))
        return progress

    try:
        trails = api.tune(
            plan, args.results, args.data, args.budget, args.sampler, args.tuning_seeds, args.objective, slots, args.timeout,
            shown, executor, ["bench", *args.given],
        )
    finally:
        if progress is not None:
            progress.close()
    trials.print_trails(trails, beside=bool(args.settings))
    return int(any(t.failed for t in trails))
