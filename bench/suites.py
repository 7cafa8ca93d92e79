"""Suites: how the papers' experiments are scaled to a purpose. A suite changes configs, never code paths.

quick  generated data, small; shows within minutes that everything runs here. No comparison with the papers.
real   your own feature files, full protocol, the main table first.
paper  everything, as the papers ran it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.data.dataset import load, locate
from bench.errors import BenchError
from bench.matrix import Config


def _same(c: Config) -> Config:
    return c


def _quick(c: Config) -> Config:
    """Generated data, four epochs, small micro-batches so that every optimiser really steps."""
    return c.with_(
        dataset=f"synthetic-{c.dataset}",
        train={"max_epochs": 4, "batch_size": min(c.train.get("batch_size", 32), 32), "accumulate": 1},
    )


@dataclass(frozen=True)
class Suite:
    """`adapt` rewrites a config; `artefacts` is what runs where none is named; seeds None: each artefact's own."""

    name: str
    artefacts: tuple[str, ...]
    seeds: int | None = None
    adapt: Callable[[Config], Config] = _same
    sequence_fallback: bool = False

    def fit_to_data(self, c: Config, data_dir: Path | None) -> tuple[Config, str]:
        """(config, "") or (changed config, why). Custom unaligned files may carry one audio vector per clip: a
        sequence model then reads the aligned file. Never applied to official files."""
        if not (self.sequence_fallback and c.backbone == "mult" and c.features == "unaligned"):
            return c, ""
        if any(locate(c.dataset, f, data_dir) is None for f in ("unaligned", "aligned")):
            return c, ""
        try:
            steps = load(c.dataset, c.features, data_dir).splits["train"]["audio"].shape[1]
        except BenchError:
            return c, ""  # the job will say what is wrong with the file
        if steps > 1:
            return c, ""
        why = f"{c.backbone} on {c.dataset}: aligned features, because the unaligned file has one audio vector per clip"
        return c.with_(features="aligned"), why


SUITES = {
    s.name: s
    for s in (
        Suite("quick", ("msmix-t1",), 2, _quick),
        Suite("real", ("msmix-t1",), None, _same, sequence_fallback=True),
        Suite("paper", ("*",), None),
    )
}


def suite(name: str) -> Suite:
    """A suite by name. Raises BenchError for an unknown one."""
    if name not in SUITES:
        raise BenchError(f"unknown suite '{name}'; known: {', '.join(SUITES)}")
    return SUITES[name]
