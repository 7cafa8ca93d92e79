"""One look per method in every figure: colour, marker and line style, so that no figure depends on colour alone.

The colours of the mixers are Okabe and Ito's, darkened to a contrast of about 3 on white; a test checks that they stay
apart for colour-blind readers. On a dark page every colour has a lighter twin (`DARK`), and ink is the page's own.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from itertools import cycle, islice
from typing import Any

import matplotlib
from matplotlib.colors import to_hex, to_rgb

from bench.report.words import pretty

WIDTH = 6.9  # inches: the text width of a page; every figure has at least two panels, so none needs a column alone
INK = "#000000"  # text and axes: the page's own colour
PAPER = "#ffffff"  # what lies behind: the page's own
MAP = "viridis"  # lightness rises evenly; readable in grey

LineStyle = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    colour: str
    marker: str = "o"
    line: LineStyle = "-"


METHODS = {
    "plain": Look("#6a6a6a", "s", (0, (4, 1.5))),
    "Manifold Mix": Look("#2e8fd0", "v", (0, (1.2, 1))),
    "MultiMix": Look("#00845f", "D", (0, (5, 1.2, 1.2, 1.2))),
    "AdvMixUp": Look("#b65f92", "P", (0, (3, 1, 1, 1, 1, 1))),
    "PowMix": Look("#c98500", "^", (0, (6, 1))),
    "MS-Mix": Look("#d04a00", "o", "-"),
    "SLaD": Look("#0b5fa5", "o", "-"),
    "SAM-LML": Look("#5b3fa8", "o", "-"),
    "CP+SL": Look("#7a4a1e", "o", "-"),
}
_ALIASES = {"none": "plain", "Ours": "CP+SL", "Manifold MixUp": "Manifold Mix", "Manifold Mixup": "Manifold Mix"}
STEPS = (  # a setting that rises from line to line
    Look("#2d4f8f", "o", "-"), Look("#1f8a8c", "s", (0, (5, 1.2))), Look("#5f9a2c", "D", (0, (5, 1.2, 1.2, 1.2))),
    Look("#c0307a", "^", (0, (1.2, 1))),
)
MODALITIES = {
    "text": Look("#3a6ea5", "o"), "audio": Look("#a8456b", "s"), "vision": Look("#4c8a38", "^", (0, (5, 1.2))),
}
POSITIVE, NEGATIVE, NEUTRAL = "#3a7fc8", "#d1493c", "#7f7f7f"  # signs of labels: blue and red, as MS-Mix Fig. 3
WARNING = "#b8400b"

_NAMED = [*METHODS.values(), *STEPS, *MODALITIES.values()]
_LOCK = threading.Lock()  # matplotlib's settings are global: one drawing at a time


def look(name: str) -> Look:
    """How a method or system is drawn; ink for one that has no colour of its own."""
    return METHODS.get(_ALIASES.get(name, name), Look(INK))


def steps(n: int) -> list[Look]:
    """Looks of n settings in rising order."""
    return list(islice(cycle(STEPS), n))


def symbols(text: str) -> str:
    """Names of parameters as the papers print them: "alpha" becomes its letter."""
    return pretty(text)


def lighter(colour: str, share: float = 0.4) -> str:
    """A colour mixed with white."""
    return to_hex([share + (1 - share) * c for c in to_rgb(colour)])


DARK = {
    c: lighter(c) for c in dict.fromkeys([*(x.colour for x in _NAMED), POSITIVE, NEGATIVE, NEUTRAL, WARNING])
}  # colour on paper -> on a dark page


@lru_cache
def settings() -> dict[str, Any]:
    """matplotlib's defaults under bench.mplstyle, whatever the user's own matplotlibrc says."""
    with as_file(files("bench.report.plots") / "bench.mplstyle") as path:
        mine = matplotlib.rc_params_from_file(path, use_default_template=False)
    return {**{k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}, **mine}


@contextmanager
def drawing() -> Iterator[None]:
    """The style, for one thread at a time; the caller's settings are back afterwards."""
    with _LOCK, matplotlib.rc_context(settings()):
        yield
