"""What `bench list --backbones`, `--mixers`, `--datasets`, `--metrics` and `--params NAME` print: what can be named, with
defaults and where they come from. Read from the sources: nothing of it imports torch."""

import argparse
import ast
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import registry
from bench.data.dataset import spec
from bench.errors import BenchError
from bench.metrics import METRICS
from bench.modalities import MODALITIES
from bench.remarks import SIGN
from bench.settings import text
from bench.sources import fields
from bench.terminal.console import console, table
from bench.train import protocol

_ASKED = ("backbones", "mixers", "datasets", "metrics")


def asked(args: argparse.Namespace) -> bool:
    """Whether `bench list` is about anything but artefacts; prints it if so."""
    for name in _ASKED:
        if getattr(args, name):
            globals()[f"_print_{name}"]()
    if args.params:
        _print_params(args.params)
    return bool(args.params) or any(getattr(args, name) for name in _ASKED)


def _print_backbones() -> None:
    lines = table("backbone", "reads", "mixers", "what it is")
    for name in registry.names("models"):
        known: Any = registry.constants("models", name)
        read = [m for m in MODALITIES if m in known.get("MODALITIES", MODALITIES)]
        lines.add_row(name, "+".join(m[0] for m in read), "-" if known.get("MIXABLE") is False else "+",
                      _title("models", name) + f" {SIGN}" * ("DESCRIPTION" in known))
    console().print(lines)
    console().print("\nreads: t text, a audio, v vision; mixers: + any of them, - none; \u00a7 built from the description; `bench list --params NAME` has the settings")


def _print_mixers() -> None:
    lines = table("mixer", "what it is")
    for name in registry.names("mixers"):
        lines.add_row(name, _title("mixers", name))
    console().print(lines)
    console().print("\n`bench list --params NAME` has the settings of one")


def _print_datasets() -> None:
    lines = table("dataset", "title", "train / valid / test", "labels", "metrics", "feature files")
    for name in registry.names("datasets"):
        s = spec(name)
        labels = "0 or 1" if s.binary else f"-{s.label_bound:g} to {s.label_bound:g}"
        lines.add_row(name, s.title, " / ".join(f"{n:,}" for n in s.sizes.values()), labels, s.metrics, ", ".join(s.features))
    console().print(lines)
    console().print("\nsynthetic-NAME is generated data of the same kind; docs/formats.md says where files are looked for")


def _print_metrics() -> None:
    lines = table("family", "metric", "printed as", "convention (p prediction, y label)")
    for family, metrics in METRICS.items():
        for key, m in metrics.items():
            lines.add_row(family, key, m.label, m.convention)
    console().print(lines)


def _print_params(name: str) -> None:
    out = console()
    if name == "train":
        out.print(_settings("train", Path(protocol.__file__), "Protocol"))
        out.print("\ndefaults of the training protocol; each backbone's own are in `bench list --params BACKBONE`")
        return
    name = name if name in {*registry.names("models"), *registry.names("mixers")} else name.casefold()
    kind = next((k for k in ("models", "mixers") if name in registry.names(k)), None)
    if kind is None:
        known = [*registry.names("models"), *registry.names("mixers"), "train"]
        near = difflib.get_close_matches(name, known, 1)
        raise BenchError(f"no backbone or mixer '{name}'" + (f"; did you mean '{near[0]}'?" if near else "; `bench list --backbones` and `--mixers` show them"))
    room = "backbone" if kind == "models" else "mixer"
    out.print(f"{name}: {_title(kind, name)}\n")
    out.print(_settings(room, registry.source(kind, name), "Params"))
    for line in _published(name) if kind == "models" else _of_papers(name):
        out.print(line)
    out.print(f"\nchange one: bench run ARTEFACT --only {name} --set {room}.NAME=VALUE --as WHAT-TO-CALL-IT")


def _title(kind: str, name: str) -> str:
    doc = ast.get_docstring(ast.parse(registry.source(kind, name).read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0].rstrip(".")


def _settings(room: str, path: Path, cls: str):
    lines = table("setting", "default", "what it is")
    for name, default, comment in fields(path, cls):
        lines.add_row(f"{room}.{name}", default, comment)
    return lines


def _published(name: str) -> Iterator[str]:
    """What runs of a backbone set on each dataset, and on whose authority."""
    from bench.experiments.common import settings

    for dataset in registry.names("datasets"):
        if spec(dataset).nearest:
            continue
        try:
            found = settings("", name, dataset)
        except BenchError:
            continue
        given = {**{f"backbone.{k}": v for k, v in found["params"].items()}, **{f"train.{k}": v for k, v in found["train"].items()}}
        source = "; ".join(dict.fromkeys(found["source"]))
        yield f"\non {dataset} ({found['features']}): {' '.join(f'{k}={text(v)}' for k, v in given.items())}"
        yield f"  source: {source or 'none stated'}"


def _of_papers(name: str) -> Iterator[str]:
    """What the papers' runs of a mixer set, and on whose authority."""
    from bench.experiments import PAPERS
    from bench.experiments.common import mixer_params, toml

    for paper in PAPERS:
        section = toml("mixers").get(paper, {})
        if name in section:
            given = mixer_params(paper, name, "mosi")
            yield f"\nin {paper}, on MOSI: {' '.join(f'mixer.{k}={text(v)}' for k, v in given.items()) or 'the defaults'}"
            yield f"  source: {section.get('source', 'none stated')}"
