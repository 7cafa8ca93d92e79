"""Suites: how the papers' experiments are scaled to a purpose. A suite changes configs, never code paths.

quick  generated data, small; shows within minutes that everything runs here. No comparison with the papers.
real   your own feature files, full protocol, the main table first.
tuned  as real, and beside every cell that `bench tune` has searched the same with the setting that it chose.
paper  everything, as the papers ran it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.data.dataset import Dataset, is_synthetic, load, locate
from bench.encoders import NONE
from bench.errors import BenchError
from bench.matrix import Config

_READ = partial(load, verify=False)  # the workers verify


def _same(c: Config) -> Config:
    return c


def _same_measure(kind: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return settings


def _quick(c: Config) -> Config:
    """Generated data, four epochs, small micro-batches so that every optimiser really steps, encoders that need no
    files (random weights: their results are marked as test-only)."""
    tiny = {k: v for k, v in _TINY.items() if c.backbone_params.get(k, NONE) != NONE}
    return c.with_(
        dataset=f"synthetic-{c.dataset}",
        train={"max_epochs": 4, "batch_size": min(c.train.get("batch_size", 32), 32), "accumulate": 1},
        backbone_params={**tiny, **(_NARROW.get(c.backbone, {}) if tiny else {}), **_SHORT.get(c.backbone, {})},
    )


def _quick_measure(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A measure's settings on the small generated data."""
    return {**settings, **{k: v for k, v in _FEW.get(kind, {}).items() if k in settings}}


_TINY = {"encoder": "tiny", "audio_encoder": "tiny-audio"}
_NARROW = {"slad": {"heads": 4}}  # the tiny encoders are 64 wide, which the paper's 12 heads do not divide
_SHORT = {"imder": {"sampling_steps": 5, "pretrain": 1}, "momke": {"stage1": 2}}  # what max_epochs does not shorten
_FEW = {  # figure kind -> settings of its measures in the quick suite
    "landscape": {"points": 7, "samples": 32},
    "tsne": {"perplexities": [5, 10], "originals": 60, "mixed": 60},
    "attention": {"pieces": 8, "columns": [2, 4]},
    "bars": {"repeats": 2},
}


@dataclass(frozen=True)
class Suite:
    """`adapt` rewrites a config, `adapt_measure` the settings of a figure's measures by the figure's kind; `artefacts`
    is what runs where none is named; seeds None: each artefact's own."""

    name: str
    artefacts: tuple[str, ...]
    seeds: int | None = None
    tuned: bool = False  # beside every cell that `bench tune` has searched, the cell with the setting it chose
    adapt: Callable[[Config], Config] = _same
    adapt_measure: Callable[[str, Mapping[str, Any]], Mapping[str, Any]] = _same_measure


def fit_to_data(
    c: Config, data_dir: Path | None, read: Callable[[str, str, Path | None], Dataset] = _READ
) -> tuple[Config, list[str]]:
    """(config, reasons why it differs from the experiment's). Official files are never adapted to. `read`: load, or what
    a caller that asks for many configs remembers of it.

    Two things that hold of the published files need not hold of a user's own: text padding that is not zero (TFN and
    LMF read the LSTM after it and learn nothing over zeros: docs/quirks.md) and audio that is a sequence in the
    unaligned file (MulT convolves it).
    """
    if c.backbone not in ("tfn", "lmf", "mult") or not is_synthetic(c.dataset) and locate(c.dataset, c.features, data_dir) is None:
        return c, []
    try:
        data = read(c.dataset, c.features, data_dir)
    except BenchError:
        return c, []  # the job will say what is wrong with the file
    if data.provenance == "official":
        return c, []
    if c.backbone == "mult":
        one_vector = data.splits["train"]["audio"].shape[1] == 1 and c.features == "unaligned"
        if one_vector and locate(c.dataset, "aligned", data_dir) is not None:
            why = f"mult on {c.dataset}: aligned features, because the unaligned file has one audio vector per clip"
            return c.with_(features="aligned"), [why]
        return c, []
    if "text_state" not in c.backbone_params and not data.splits["train"]["text"][:64, -1].any():
        why = f"{c.backbone} on {c.dataset}: text_state=valid, because the file pads text with zeros, over which the LSTM forgets"
        return c.with_(backbone_params={"text_state": "valid"}), [why]
    return c, []


def fitted_settings(backbone: str) -> tuple[tuple[str, Any], ...]:
    """The settings (name, value) that fit_to_data may give a backbone."""
    text = ("backbone.text_state", "valid")
    return {"tfn": (text,), "lmf": (text,), "mult": (("features", "aligned"),)}.get(backbone, ())


SUITES = {
    s.name: s
    for s in (
        Suite("quick", ("msmix-t1",), 2, adapt=_quick, adapt_measure=_quick_measure),
        Suite("real", ("msmix-t1",)),
        Suite("tuned", ("msmix-t1",), tuned=True),
        Suite("paper", ("*",)),
    )
}


def suite(name: str) -> Suite:
    """A suite by name. Raises BenchError for an unknown one."""
    if name not in SUITES:
        raise BenchError(f"unknown suite '{name}'; known: {', '.join(SUITES)}")
    return SUITES[name]
