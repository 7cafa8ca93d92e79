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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="Regenerate the tables and figures of five papers on multimodal sentiment analysis.")
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("--plugins", type=Path, action="append", default=[], metavar="DIR", help="folder with components of your own (docs/extending.md); also $BENCH_PLUGINS")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--suite", help="quick (generated data), real (your data, main table), paper (everything); default quick, with --data real; "
                       "report: the suite that was run last")
    where.add_argument("--data", type=Path, metavar="DIR", help="folder with the feature files")
    where.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="results root (default: results)")
    where.add_argument("--seeds", type=_positive, metavar="N", help="number of seeds, from 1111 (default: the artefact's own)")
    where.add_argument("--only", metavar="GLOB", help="only jobs whose id, folder or dataset/backbone+mixer matches")
    where.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override train.X, backbone.X, mixer.X, fraction or features; the cells that this changes stand beside the defaults")
    where.add_argument("--as", dest="variant", metavar="NAME", default="", help="what reports call the cells that --set changes (default: the settings)")

    def verb(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, parents=list(parents))

    where.add_argument("--dataset-from", type=Path, metavar="DIR", help="your own data set: an M-SENA-like file in DIR; adds the table own-t1")
    where.add_argument("--allow-leak", action="store_true", help="use feature files whose splits share ids; reports say so")

    listing = verb("list", "Every artefact: runs needed, done, failed, and the data it needs.", where)
    planning = verb("plan", "Jobs after de-duplication: done, missing, estimated time.", where)
    running = verb("run", "Run what is missing; resumes by default.", where)
    for p in (listing, planning, running):
        p.add_argument("artefacts", nargs="*", metavar="ARTEFACT", help="ids such as msmix-t1; globs allowed")
    planning.add_argument("--json", action="store_true", help="machine-readable output")
    running.add_argument("--workers", type=_positive, metavar="N", help="worker processes (default: one per core, or per GPU slot)")
    running.add_argument("--gpus", default="auto", metavar="0,1", help="GPUs to use, or none (default: all there are, else the CPU)")
    running.add_argument("--per-gpu", type=_seats, default="auto", metavar="N", help="jobs at once on each GPU (default auto: as many as its memory and its idle time allow, measured while they run)")
    running.add_argument("--engine", choices=("auto", "graph", "eager"), default="auto", help="how steps reach a GPU: CUDA graphs where they can be captured (auto), or else an error (graph), or never (eager); changes no number")
    _add_cluster(running)
    running.add_argument("--detach", action="store_true", help="go on in the background, without this terminal; `bench status` shows it")
    running.add_argument("--timeout", type=float, metavar="S", help="seconds after which a job counts as failed")
    running.add_argument("--retry-failed", action="store_true", help="run failed jobs again")
    running.add_argument("--fail-fast", action="store_true", help="stop at the first failure")
    running.add_argument("--keep-checkpoints", action="store_true", help="keep every job's weights, for predict and export (default: those that figures are measured on, removed after)")
    running.add_argument("--dry-run", action="store_true", help="say what would run")

    tuning = verb("tune", "The same budget of trials for every method, judged on validation data, on seeds of their own.", where)
    tuning.add_argument("artefacts", nargs="*", metavar="ARTEFACT", help="ids such as msmix-t1; globs allowed")
    tuning.add_argument("--budget", type=_positive, default=12, metavar="N", help="trials of each method, the published setting among them (default 12)")
    tuning.add_argument("--sampler", default="tpe", metavar="NAME", help="tpe (default), random, halving, or paper: each method's own paper's search")
    tuning.add_argument("--tuning-seeds", type=_positive, default=1, metavar="N", help="seeds of each trial, from 101 (default 1)")
    tuning.add_argument("--objective", default="loss", metavar="METRIC", help="validation metric to choose by (default: the loss that training stops by)")
    tuning.add_argument("--workers", type=_positive, metavar="N", help="worker processes (default: one per core)")
    tuning.add_argument("--gpus", default="auto", metavar="0,1", help="GPUs to use, or none (default: all there are, else the CPU)")
    tuning.add_argument("--per-gpu", type=_seats, default="auto", metavar="N", help="jobs at once on each GPU (default auto: as many as its memory and its idle time allow, measured while they run)")
    _add_cluster(tuning)
    tuning.add_argument("--detach", action="store_true", help="go on in the background, without this terminal")
    tuning.add_argument("--timeout", type=float, metavar="S", help="seconds after which a trial counts as failed")

    reporting = verb("report", "Tables, figures, claims and audit from what is stored.", where)
    reporting.add_argument("artefacts", nargs="*", metavar="ARTEFACT")
    reporting.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: reports/<suite>)")
    reporting.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two results folders side by side")
    reporting.add_argument("--split", choices=["test", "valid"], default="test", help="whose values the tables show (default: test)")
    reporting.add_argument("--variants", action="store_true", help="show everything that ran with other settings, as rows of their own")
    reporting.add_argument("--watch", type=float, nargs="?", const=30.0, metavar="S", help="render again every S seconds until all is done")
    showing = verb("show", "One job: settings and where they come from, metrics, files, the tables that use it.")
    showing.add_argument("job", metavar="JOB", help="a job's id, the beginning of one, or its folder")
    showing.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="results root (default: results)")
    auditing = verb("audit", "Checks on the papers' own numbers; no training needed.")
    auditing.add_argument("--out", type=Path, default=Path("reports/audit"), metavar="DIR")

    data = verb("data", "Check, generate, encode or convert feature files.")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="what is in a data folder, and whether it can be used")
    check.add_argument("dir", type=Path)
    check.add_argument("--json", action="store_true", help="everything that is known, for machines")
    check.add_argument("--html", type=Path, metavar="FILE", help="write a page with small plots too")
    check.add_argument("--quick", action="store_true", help="only whether the files can be used")
    synth = actions.add_parser("synth", help="write generated feature files in every format that is read")
    synth.add_argument("dir", type=Path)
    synth.add_argument("--full", action="store_true", help="the real sizes and lengths instead of small ones")
    synth.add_argument("--datasets", default="", metavar="A,B", help="names of datasets (default: all)")
    encode = actions.add_parser("encode", help="write text features of an encoder into a copy of a feature file")
    encode.add_argument("input", type=Path)
    encode.add_argument("output", type=Path)
    encode.add_argument("--encoder", required=True)
    convert = actions.add_parser("convert", help="rewrite a file: aligned M-SENA pickle or pack of words as word-level pickle, table as label.csv")
    convert.add_argument("input", type=Path)
    convert.add_argument("output", type=Path)
    for m in ("text", "audio", "vision"):
        convert.add_argument(f"--{m}-from", type=Path, metavar="FILE", help=f"write an M-SENA file: INPUT with its {m} replaced by the features in FILE")
    convert.add_argument("--text", default="", metavar="COLUMN", help="of a table: the column with the transcripts")
    looking = verb("status", "Runs in progress on a results folder: counts, jobs in training, time left, last failures.")
    looking.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    looking.add_argument("--watch", type=float, nargs="?", const=5.0, metavar="S", help="again every S seconds (default 5) until nothing runs")
    stopping = verb("cancel", "Stop runs in progress, from any machine that sees the results folder.")
    stopping.add_argument("run", nargs="?", default="", metavar="RUN", help="id of a run as `bench status` prints it (default: all)")
    stopping.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    predicting = verb("predict", "Scores of a feature file by a job's kept weights, as csv.")
    predicting.add_argument("--job", required=True, metavar="JOB", help="id of a job (its beginning will do), its folder, or a weights.safetensors")
    predicting.add_argument("--data", type=Path, required=True, metavar="FILE", help="a feature file of the kind the job was trained on; labels are not needed")
    predicting.add_argument("--out", type=Path, metavar="CSV", help="where to write (default: the terminal)")
    predicting.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    exporting = verb("export", "A job's weights, settings and a card, for use elsewhere.")
    exporting.add_argument("job", metavar="JOB", help="id of a job (its beginning will do), or its folder")
    exporting.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: exported/<job>)")
    exporting.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    making = verb("new", "Write a working component of your own, and a test of its contract.")
    making.add_argument("kind", metavar="mixer|backbone|dataset|experiment")
    making.add_argument("name", metavar="NAME")
    making.add_argument("--in", type=Path, default=Path("mine"), dest="folder", metavar="DIR", help="folder of plug-ins (default: mine)")
    checking = verb("check", "Run the contract of a backbone or mixer, yours or any other.")
    checking.add_argument("name", metavar="NAME")
    verifying = verb("verify", "Whether stored results are what runs wrote.")
    verifying.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="results root (default: results)")
    verifying.add_argument("--deep", action="store_true", help="recompute every metric from the stored predictions")
    merging = verb("merge", "Copy the done jobs of other results folders into the first.")
    merging.add_argument("into", type=Path, metavar="A")
    merging.add_argument("others", type=Path, nargs="+", metavar="B")
    doctor = verb("doctor", "What will and will not run here, and why.")
    doctor.add_argument("--data", type=Path, metavar="DIR")
    return parser


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    from bench.launch.cluster import EXECUTORS

    group = parser.add_argument_group("cluster", "docs/cluster.md has examples")
    group.add_argument("--executor", choices=EXECUTORS, default="local", help="where jobs run: this machine (default), a Dask cluster, or a queueing system's nodes")
    group.add_argument("--scheduler", default="", metavar="ADDRESS", help="of a running Dask cluster, as tcp://HOST:8786")
    group.add_argument("--cluster-config", type=Path, metavar="FILE", help="options of a queueing system (TOML)")
    for flag, meaning in (("partition", "queue to use"), ("time", "length of an allocation, h:mm:ss")):
        group.add_argument(f"--{flag}", default="", metavar=flag.upper(), help=meaning)
    group.add_argument("--gpus-per-worker", type=_positive, metavar="N", help="GPUs of an allocation")
    group.add_argument("--max-workers", type=_positive, metavar="N", help="most allocations at once")
    group.add_argument("--results-on", choices=("workers", "caller"), default="workers", help="who writes results: workers that see the folder (default), or this process")
    group.add_argument("--send-data", action="store_true", help="send a feature file to machines that lack it")


def _version() -> str:
    from bench import __version__

    return f"bench {__version__}"


def _seats(text: str) -> int | str:
    return text if text == "auto" else _positive(text)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes a whole number, got '{text[:40]}'") from None
    if not 1 <= value <= 10_000:
        raise argparse.ArgumentTypeError("must be from 1 to 10000")
    return value


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
    args = _parser().parse_args(_plugins_first(sys.argv[1:] if arguments is None else arguments))
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
        args.settings, everything, args.variant,
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
    from bench.store import Store
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
        lambda jobs: Progress(jobs, executor.workers, trials.expected(jobs, Store(args.results))), executor,
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
