"""The command line: parses, calls, prints. Exit codes: 0 all well; 1 some jobs failed; 2 wrong usage or unusable
data, in one clear line; 130 after Ctrl-C."""

import argparse
import errno
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import plugins
from bench.errors import BenchError
from bench.terminal import streams
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
    streams.prepare()
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
        code = verb(args)
        sys.stdout.flush()  # a short output meets a closed pipe or a full disk here, not when Python ends
        return code
    except BenchError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench: stopped; finished jobs are kept, the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:
        streams.drop(sys.stdout)
        return 0
    except OSError as e:
        if e.errno != errno.ENOSPC or e.filename:
            raise
        streams.drop(sys.stdout)
        print("bench: the output cannot be written: no space left where it goes", file=sys.stderr)
        return 2
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
    from bench.terminal import catalogue, plans

    if not catalogue.asked(args):
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
    from bench.terminal import running

    return running.run(args, _make_plan)


def _tune(args: argparse.Namespace) -> int:
    from bench.terminal import running

    return running.tune(args, _make_plan)


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


def _open(args: argparse.Namespace) -> int:
    from bench.terminal.opening import open_report

    print(open_report(args.report))
    return 0


def _completion(args: argparse.Namespace) -> int:
    from bench.terminal.completion import script

    print(script(args.shell, parser()), end="")
    return 0


def _show(args: argparse.Namespace) -> int:
    from bench.store import Store
    from bench.terminal.show import print_job

    print_job(Store(args.results), args.job, args.html)
    return 0


def _audit(args: argparse.Namespace) -> int:
    from bench.terminal.checks import print_audit

    print_audit(args.out)
    return 0


def _data(args: argparse.Namespace) -> int:
    from bench.terminal import feature_files

    return feature_files.run(args)


def _predict(args: argparse.Namespace) -> int:
    from bench import api

    found = api.predict(args.job, args.data, args.results)
    text = found.to_csv(index=False, float_format="%.7g", lineterminator="\n")
    if args.out:
        from bench.files import write_atomic

        write_atomic(args.out, text.encode(), "--out")
    print(args.out or text, end="\n" if args.out else "")
    return 0


def _export(args: argparse.Namespace) -> int:
    from bench import api

    print(api.export(args.job, args.results, args.out))
    return 0


def _new(args: argparse.Namespace) -> int:
    from bench.scaffold import write

    for path in write(args.kind, args.name, args.folder):
        print(path)
    then = {"dataset": "list --datasets", "experiment": f"plan {args.name}-t1"}.get(args.kind, f"check {args.name}")
    print(f"next: bench {then} --plugins {shlex.quote(str(args.folder))}    (docs/extending.md)")
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
