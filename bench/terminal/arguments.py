"""The command line's words: verbs, flags, and what each means."""

import argparse
import difflib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn


def parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(prog="bench", description="Regenerate the tables and figures of five papers on multimodal sentiment analysis.")
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("--plugins", type=Path, action="append", default=[], metavar="DIR", help="folder with components of your own (docs/extending.md); also $BENCH_PLUGINS")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--suite", help="quick (generated data), real (your data, main table), paper (everything); default quick, with --data real; "
                       "report: the suite that was run last")
    where.add_argument("--data", type=Path, metavar="DIR", help="folder with the feature files")
    where.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="results root (default: results)")
    where.add_argument("--seeds", type=_positive, metavar="N", help="number of seeds, from 1111 (default: the artefact's own)")
    where.add_argument("--only", metavar="NAMES", action="append", help="only these jobs, by name or glob, whatever the case: backbones, mixers, datasets, rows' systems and methods, dataset/backbone+mixer, job ids; a comma is or, the flag given again is and")
    where.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="override train.X, backbone.X, mixer.X, corruption.X, fraction, features or data.modalities; the cells that this changes stand beside the defaults")
    where.add_argument("--modalities", metavar="LIST", dest="settings", action="append", type="data.modalities={}".format,
                       help="train on these alone, as text,audio; the others are blanked everywhere (the same as --set data.modalities=LIST)")
    where.add_argument("--as", dest="variant", metavar="NAME", default="", help="what reports call the cells that --set changes (default: the settings)")

    def verb(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        epilog = _settings() if where in parents else None
        return verbs.add_parser(name, help=text, description=text, parents=list(parents), epilog=epilog, formatter_class=_Help)

    where.add_argument("--dataset-from", type=Path, metavar="DIR", help="your own data set: an M-SENA-like file in DIR; adds the table own-t1")
    where.add_argument("--allow-leak", action="store_true", help="use feature files whose splits share ids; reports say so")

    listing = verb("list", "Every artefact: runs needed, done, failed, and the data it needs.", where)
    planning = verb("plan", "Jobs after de-duplication: done, missing, estimated time.", where)
    running = verb("run", "Run what is missing; resumes by default.", where)
    for name, what in (("backbones", "backbones and systems"), ("mixers", "mixup methods"), ("datasets", "data sets"), ("metrics", "metrics and their conventions")):
        listing.add_argument(f"--{name}", action="store_true", help=f"list {what} instead")
    listing.add_argument("--params", metavar="NAME", default="", help="the settings of a backbone or mixer (or train): defaults, and what is run on each data set, with its source")
    for p in (listing, planning, running):
        p.add_argument("artefacts", nargs="*", metavar="ARTEFACT", help="ids such as msmix-t1; globs allowed")
    for p in (planning, running):
        p.add_argument("--baselines", action="store_true", help="rows of simple baselines in every table: majority, ridge on text, text only, audio only, vision only")
    planning.add_argument("--json", action="store_true", help="machine-readable output")
    running.add_argument("--workers", type=_positive, metavar="N", help="worker processes (default: one per core, or per GPU slot)")
    running.add_argument("--gpus", default="auto", metavar="0,1", help="GPUs to use, or none (default: all there are, else the CPU)")
    running.add_argument("--per-gpu", type=_seats, default="auto", metavar="N", help="jobs at once on each GPU (default auto: as many as its memory and its idle time allow, measured while they run)")
    running.add_argument("--engine", choices=("auto", "graph", "eager"), default="auto", help="how steps reach a GPU: CUDA graphs where they can be captured (auto), or else an error (graph), or never (eager); changes no number")
    add_cluster(running)
    running.add_argument("--detach", action="store_true", help="go on in the background, without this terminal; `bench status` shows it")
    running.add_argument("--timeout", type=float, metavar="S", help="seconds after which a job counts as failed")
    running.add_argument("--retry-failed", action="store_true", help="run failed jobs again")
    running.add_argument("--fail-fast", action="store_true", help="stop at the first failure")
    running.add_argument("--keep-checkpoints", action="store_true", help="keep every job's weights, for predict and export (default: those that figures are measured on, removed after)")
    running.add_argument("--report", action="store_true", help="render the report at the end")
    running.add_argument("--tensorboard", action="store_true", help="write event files of every finished job under RESULTS/tensorboard (needs tensorboard or tensorboardX)")
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
    add_cluster(tuning)
    tuning.add_argument("--detach", action="store_true", help="go on in the background, without this terminal")
    tuning.add_argument("--timeout", type=float, metavar="S", help="seconds after which a trial counts as failed")

    reporting = verb("report", "Tables, figures, claims and audit from what is stored.", where)
    reporting.add_argument("artefacts", nargs="*", metavar="ARTEFACT")
    reporting.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: reports/<suite>)")
    reporting.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two results folders side by side")
    reporting.add_argument("--split", choices=["test", "valid"], default="test", help="whose values the tables show (default: test)")
    reporting.add_argument("--variants", action="store_true", help="show everything that ran with other settings, as rows of their own")
    reporting.add_argument("--watch", type=_interval, nargs="?", const=30.0, metavar="S", help="render again every S seconds (default 30) until all is done, or nothing runs that could do it")
    opening = verb("open", "Open the last report, or the one named, in a browser.")
    opening.add_argument("report", nargs="?", default="", metavar="REPORT", help="a page, its folder, or a name under reports/ (default: the last one made)")
    showing = verb("show", "One job: settings and where they come from, metrics, files, the tables that use it.")
    showing.add_argument("job", metavar="JOB", help="a job's id, the beginning of one, or its folder")
    showing.add_argument("--html", type=Path, metavar="FILE", help="write a page of the job too: curves of its training, predictions, settings")
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
    looking.add_argument("--watch", type=_interval, nargs="?", const=5.0, metavar="S", help="again every S seconds (default 5) until nothing runs")
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
    completing = verb("completion", "Print a script that completes verbs, flags and names: eval \"$(bench completion bash)\"")
    completing.add_argument("shell", choices=("bash", "zsh"))
    doctor = verb("doctor", "What will and will not run here, and why.")
    doctor.add_argument("--data", type=Path, metavar="DIR")
    return parser


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong. A value that is empty is one of a shell's variables that is not set: taken as it
    stands it would mean every job, or the folder one happens to be in."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bench: {message.removeprefix('argument ')} (`{self.prog} --help`)\n")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.nargs != argparse.PARSER and not all(map(str.strip, arg_strings)):
            raise argparse.ArgumentError(action, "its value is empty; is a variable not set?")
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            near = difflib.get_close_matches(str(value).lower(), known, 1)
            raise argparse.ArgumentError(action, f"there is no '{value}'; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"))


class _Help(argparse.HelpFormatter):
    """Wraps what follows the flags paragraph by paragraph."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(super(_Help, self)._fill_text(line, width, indent) for line in text.splitlines())


def _settings() -> str:
    """What --set takes, in words."""
    from bench.train.protocol import Protocol

    names = " ".join(f"train.{f.name}" for f in fields(Protocol))
    return ("--set takes " + names + " (`bench list --params train`);\nbackbone.NAME and mixer.NAME, which "
            "`bench list --params BACKBONE` (or MIXER) lists; corruption.NAME; fraction; features; data.modalities")


def add_cluster(parser: argparse.ArgumentParser) -> None:
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


def _within(kind: type, what: str, low: float, high: float, unit: str = "") -> Callable[[str], Any]:
    """Reads a number of a kind from `low` to `high`."""
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"takes {what}, got '{text[:40]}'") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}{unit}")
        return value

    return read


_interval = _within(float, "seconds", 0.1, 86_400, " seconds")
_positive = _within(int, "a whole number", 1, 10_000)
