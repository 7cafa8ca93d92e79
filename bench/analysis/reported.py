"""The numbers that the five papers print, as one tidy frame.

The files are `experiments/reported/<paper>.csv`, one line per printed numeric cell; their README defines every column,
label rule, metric key and convention. Text is kept beside the numbers, because trailing zeros carry information: a mean
printed as 84.50 is known to 0.005, one printed as 84.5 to 0.05.
"""

from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import pandas as pd

from bench import EXPERIMENTS, plugins
from bench.errors import BenchError

FOLDER = EXPERIMENTS / "reported"
PAPERS = ("msmix", "powmix", "slad", "samlml", "cpsl")
KEY = ("artefact", "dataset", "backbone", "method", "variant", "metric")  # identifies a cell
FLAGS = ("elsewhere", "bold", "underline")


def load(paper: str | None = None) -> pd.DataFrame:
    """The printed cells of one paper ("msmix", ...), or of all five and of plug-ins, in print order.

    Columns: those of KEY, `convention`, `unit`, `mean` and `std` (float; std NaN where none is printed), `n` (Int64, NA
    where the paper does not say), `elsewhere`, `bold`, `underline` (bool), `mean_text` and `std_text` (as printed),
    `decimals` (int: the mean is rounded to 10^-decimals, also where it is printed as 3.68e-4), `paper`, and `cell_id`
    (the fields of KEY joined by "/"). Raises BenchError for a paper that is not one of PAPERS.
    """
    known = {p: FOLDER / f"{p}.csv" for p in PAPERS} | {p.stem: p for p in plugins.files("reported", "csv") if p.stem not in PAPERS}
    if paper is not None and paper not in known:
        raise BenchError(f"no reported numbers for paper '{paper}'; known papers: {', '.join(known)}")
    wanted = [path for p, path in known.items() if paper in (None, p)]
    frames = [frame for p in wanted if (frame := _read(p) if p.parent == FOLDER else _plugin(p)) is not None]
    return pd.concat(frames, ignore_index=True)  # a copy: the cached frames stay as they are


def _plugin(path: Path) -> pd.DataFrame | None:
    """A plug-in's reported numbers; None, and noted, where they cannot be read."""
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, ArithmeticError, pd.errors.ParserError) as e:
        first = str(e).splitlines()[0] if str(e) else ""
        plugins.problem(f"{path}: not a table of reported numbers (experiments/reported/README.md): {type(e).__name__} {first}")
        return None


@lru_cache
def _read(path: Path) -> pd.DataFrame:
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    cells = cells.rename(columns={"mean": "mean_text", "std": "std_text"})
    means = [_decimal(text) for text in cells["mean_text"]]
    return cells.assign(
        mean=[float(d) for d in means],
        std=[float(text) if text else float("nan") for text in cells["std_text"]],
        decimals=[max(0, -d.as_tuple().exponent) for d in means],
        n=cells["n"].map(lambda text: int(text) if text else pd.NA).astype("Int64"),
        **{flag: cells[flag] == "1" for flag in FLAGS},
        paper=path.stem,
        cell_id=["/".join(key) for key in cells[list(KEY)].itertuples(index=False)],
    )


def _decimal(text: str) -> Decimal:
    """A printed number: thousands separators allowed ("17,066,564"), and exponents ("3.68e-4")."""
    return Decimal(text.replace(",", ""))
