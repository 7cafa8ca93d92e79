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

import numpy as np

from bench.data.dataset import Dataset, is_synthetic, load, locate
from bench.encoders import NONE, TINY_WORDS
from bench.errors import BenchError
from bench.matrix import Config

_READ = partial(load, verify=False)  # the workers verify


def _same(c: Config) -> Config:
    return c


def _same_measure(kind: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return settings


def _quick(c: Config) -> Config:
    """Generated data, narrow models, encoders that need no files (their results are marked as test-only), and few, fast
    steps under which a model finds what is there: tests/test_quick.py holds it against a ridge regression."""
    tiny = {k: v for k, v in _TINY.items() if c.backbone_params.get(k, NONE) != NONE}
    return c.with_(
        dataset=f"synthetic-{c.dataset}",
        features=_FEATURES.get(c.backbone, c.features),
        train={**_STEPS, **_LONGER.get(c.backbone, {})},
        backbone_params={**tiny, **_NARROW.get(c.backbone, {}), **_SHORT.get(c.backbone, {})},
    )


def _quick_measure(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A measure's settings on the small generated data."""
    return {**settings, **{k: v for k, v in _FEW.get(kind, {}).items() if k in settings}}


_TINY = {"encoder": TINY_WORDS, "audio_encoder": "tiny-audio"}
_STEPS = {  # 50 updates; an encoder that knows its words forgets them at a faster rate
    "max_epochs": 5, "batch_size": 24, "accumulate": 1, "lr": 1.5e-3, "group_lr": {"encoder": 1e-4, "encoder-no-decay": 1e-4},
    "scheduler": "none", "milestones": [],
}
_LONGER = {"almt": {"max_epochs": 6}}
_FEATURES = {"slad": "unaligned"}  # what it reads instead of waves, whose encoder costs ten times the rest
_NARROW = {  # backbone -> widths that a core trains in seconds; heads have to divide them
    "tfn": {"audio_hidden": 16, "vision_hidden": 16, "text_hidden": 64},
    "mult": {"width": 20, "heads": 4, "levels": 1},
    "misa": {"hidden_size": 64},
    "almt": {"d": 64, "hyper_depth": 2},
    "glomo": {"layers": 2},
    "slad": {"heads": 4, "head": [64, 64], "audio_encoder": NONE, "context": 0},
    "samlml": {"d": 40, "layers": [1, 1, 1]},
    "cpsl": {"inter": 64, "fused": 128},
}
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
    if "text_state" not in c.backbone_params and _zero_padding(data.splits["train"]):
        why = f"{c.backbone} on {c.dataset}: text_state=valid, because the file pads text with zeros, over which the LSTM forgets"
        return c.with_(backbone_params={"text_state": "valid"}), [why]
    return c, []


def _zero_padding(arrays: Mapping[str, Any]) -> bool:
    """Whether the text of clips is zero after their last token (where no tokens are given: at the last step)."""
    text, tokens = np.asarray(arrays["text"][:64]), arrays.get("text_bert")  # (N, L, d)
    if tokens is None:
        return not text[:, -1].any()
    padded = np.arange(text.shape[1]) >= np.asarray(tokens[:64, 1]).sum(-1)[:, None]  # (N, L)
    return bool(padded.any()) and not text[padded].any()


def fitted_settings(backbone: str) -> tuple[tuple[str, Any], ...]:
    """The settings (name, value) that fit_to_data may give a backbone."""
    text = ("backbone.text_state", "valid")
    return {"tfn": (text,), "lmf": (text,), "mult": (("features", "aligned"),)}.get(backbone, ())


_QUICK = (  # of every paper one, of every kind one; what is trained for several is trained once
    "msmix-t1", "msmix-t4", "msmix-f4", "powmix-t1", "powmix-f2", "powmix-f6", "slad-f5", "samlml-f4", "cpsl-f2",
)
SUITES = {
    s.name: s
    for s in (
        Suite("quick", _QUICK, 2, adapt=_quick, adapt_measure=_quick_measure),
        Suite("real", ("msmix-t1",)),
        Suite("tuned", ("msmix-t1",), tuned=True),
        Suite("paper", ("*",)),
    )
}


def suite(name: str) -> Suite:
    """A suite by name. Raises BenchError for an unknown one."""
    if name.casefold() not in SUITES:
        raise BenchError(f"unknown suite '{name}'; known: {', '.join(SUITES)}")
    return SUITES[name.casefold()]
