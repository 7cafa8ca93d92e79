"""Loss around trained weights along two directions: a surface and a contour per method, one scale for all of them."""


import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from mpl_toolkits.mplot3d import Axes3D

from bench.analysis.stats import holm, paired
from bench.report.plots.parts import EMPTY_HEIGHT, not_run, plain_number, sheet
from bench.report.plots.style import MAP, WARNING, WIDTH, symbols
from bench.report.plots.view import (
    Drawing,
    Measured,
    View,
    holes,
    means_text,
    provenance_text,
    sentences,
    spread,
    unmeasured,
)

_STEEP = 20  # highest over lowest loss from which on the scale is logarithmic


def plot(view: View) -> Drawing:
    """Draw an artefact of kind "landscape": surfaces over contours, three methods in a row, of the first seed that all
    methods shown have."""
    places = [(p, view.experiment.rows[view.rows(p["rows"])[0]]) for p in view.panels]
    found = [view.measured(p, row) for p, row in places]
    seed = _seed(view, found)
    pictures = [m.values[s][1] if (s := _own(m, seed)) is not None else None for m in found]
    titles = [symbols(p["title"]) for p, _ in places]
    if not any(pictures):
        figure, axes = sheet(view, [EMPTY_HEIGHT] * -(-len(places) // 3), min(3, len(places)))
        for a, title, m in zip(axes.flat, titles, found):
            not_run(a, title, m.why, m.head)
        return Drawing(figure, pd.DataFrame(), "", holes(view) + unmeasured(found))
    losses = [p["loss"] for p in pictures if p]
    low, high = min(map(np.nanmin, losses)), max(map(np.nanmax, losses))
    norm = LogNorm(low, high) if low > 0 and high / low > _STEEP else Normalize(low, high)
    figure = _draw(view, titles, found, pictures, norm)
    points = [
        {"panel": t, "alpha": a, "beta": b, "loss": p["loss"][i, j]}
        for t, p in zip(titles, pictures) if p for i, a in enumerate(p["alpha"]) for j, b in enumerate(p["beta"])
    ]
    return Drawing(
        figure, pd.DataFrame(points), _caption(view, found, seed, isinstance(norm, LogNorm)),
        _tests(view, [row.method for _, row in places], found) + holes(view) + unmeasured(found),
    )


def _own(m: Measured, seed: int | None) -> int | None:
    return seed if seed in m.values else next(iter(m.values), None)


def _seed(view: View, found: list[Measured]) -> int | None:
    """The first seed that every measured method has."""
    there = [set(m.values) for m in found if m.values]
    return next((s for s in view.seeds if there and all(s in t for t in there)), None)


def _draw(view: View, titles: list[str], found: list[Measured], pictures: list, norm: Normalize) -> Figure:
    columns = min(3, len(titles))
    lines = [range(k, min(k + columns, len(titles))) for k in range(0, len(titles), columns)]
    tall, wide, head, gap = 1.75, 1.45, 0.36, 0.42  # inches: surface, contour, its titles, space below
    heights = [(head + tall + wide if any(pictures[k] for k in line) else EMPTY_HEIGHT) + gap for line in lines]
    banner = 0.2 * (view.table.provenance == "synthetic")
    height, width, left = sum(heights) + banner, (WIDTH - 1.15) / columns, 0.45
    figure = Figure((WIDTH, height), dpi=300)  # of what is rasterised
    if banner:
        figure.text(0.5, 1 - 0.1 / height, "SYNTHETIC DATA: not a result", color=WARNING, ha="center", va="center")
    upper = height - banner
    for line, own in zip(lines, heights):
        for c, k in enumerate(line):
            x, w = left + c * width, width - 0.35

            def box(right: float, down: float, wide: float, high: float, x: float = x, upper: float = upper) -> list[float]:
                return [(x + right) / WIDTH, (upper - down - high) / height, wide / WIDTH, high / height]

            if pictures[k] is None:
                not_run(figure.add_axes(box(0, 0.22, w, EMPTY_HEIGHT - 0.1)), titles[k], found[k].why, found[k].head)
                continue
            rise = f"rise {spread(found[k].number('loss_rise'))}"
            for text, down, size in ((titles[k], 0.04, 7.5), (rise, 0.19, 6.5)):
                figure.text((x + w / 2) / WIDTH, (upper - down) / height, text, ha="center", va="top", fontsize=size)
            surface = Axes3D(figure, box(-0.2, head - 0.14, width + 0.05, tall), computed_zorder=False)
            figure.add_axes(surface)
            _surface(surface, pictures[k], norm)
            _contour(figure.add_axes(box(0, head + tall, w, wide)), pictures[k], norm, first=c == 0)
        upper -= own
    cax = figure.add_axes([1 - 0.52 / WIDTH, 0.25, 0.1 / WIDTH, 0.5])
    scale = figure.colorbar(ScalarMappable(norm, MAP), cax=cax)
    scale.outline.set_visible(False)
    scale.set_label("loss")
    if isinstance(norm, LogNorm):
        scale.set_ticks(_round_values(norm))
        scale.ax.yaxis.set_minor_locator(NullLocator())
        scale.ax.yaxis.set_major_formatter(FuncFormatter(plain_number))
    return figure


def _round_values(norm: Normalize) -> list[float]:
    """1, 2 and 5 times the powers of ten within a logarithmic scale."""
    powers = 10.0 ** np.arange(np.floor(np.log10(norm.vmin)), np.ceil(np.log10(norm.vmax)) + 1)
    return [float(f"{m * p:.3g}") for p in powers for m in (1, 2, 5) if norm.vmin <= m * p <= norm.vmax]


def _height(loss: np.ndarray, norm: Normalize) -> np.ndarray:
    return np.log10(loss) if isinstance(norm, LogNorm) else loss


def _surface(axes: Axes3D, p: dict[str, np.ndarray], norm: Normalize) -> None:
    a, b = np.meshgrid(p["alpha"], p["beta"], indexing="ij")
    colours = ScalarMappable(norm, MAP).to_rgba(p["loss"])
    axes.plot_surface(
        a, b, _height(p["loss"], norm), facecolors=colours, rstride=1, cstride=1, linewidth=0, antialiased=False,
        shade=False, rasterized=True,
    )
    axes.set_zlim(*_height(np.array([norm.vmin, norm.vmax]), norm))
    axes.view_init(elev=28, azim=-55)
    axes.set_box_aspect((1, 1, 0.72), zoom=1.04)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.fill = False
        axis.pane.set_edgecolor((0, 0, 0, 0.12))
        axis.line.set_linewidth(0.5)
        axis._axinfo["grid"].update(linewidth=0.3, color=(0, 0, 0, 0.12))
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    if isinstance(norm, LogNorm):
        values = _round_values(norm)
        axes.set_zticks(np.log10(values), [plain_number(v) for v in values])
    else:
        axes.zaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=6, pad=-4)
    axes.tick_params(axis="z", pad=-2)


def _contour(axes: Axes, p: dict[str, np.ndarray], norm: Normalize, first: bool) -> None:
    edge = _height(np.array([norm.vmin, norm.vmax]), norm)
    z = _height(p["loss"], norm).T  # columns: alpha
    axes.contourf(p["alpha"], p["beta"], z, levels=np.linspace(*edge, 15), cmap=MAP, vmin=edge[0], vmax=edge[1])
    axes.plot([0], [0], linestyle="", marker="+", color="#fefefe", markersize=5)
    axes.set_aspect("equal")
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(False)
    axes.set_xlabel("along direction 1")
    if first:
        axes.set_ylabel("along direction 2")


def _tests(view: View, methods: list[str], found: list[Measured]) -> list[str]:
    """The proposed method's rise against every other, paired by seed."""
    proposed = next((r.method for r in view.experiment.rows if r.baseline == "proposed"), None)
    if proposed not in methods:
        return []
    own = pd.Series(found[methods.index(proposed)].by_seed("loss_rise"), dtype=float)
    others = {m: pd.Series(f.by_seed("loss_rise"), dtype=float) for m, f in zip(methods, found) if m != proposed}
    lines = [(m, t) for m, rise in others.items() if (t := paired(own, rise)).n > 1 and np.isfinite(t.p)]
    if not lines:
        return []
    adjusted = holm([t.p for _, t in lines])
    parts = [
        f"{m} {t.difference:+.3f} [{t.low:+.3f}, {t.high:+.3f}], p = {p:.3f}".replace("-", "\u2212")
        for (m, t), p in zip(lines, adjusted)
    ]
    return [f"Rise of {proposed} minus that of another method, paired by seed, Holm-adjusted p: {'; '.join(parts)}"]


def _caption(view: View, found: list[Measured], seed: int | None, steep: bool) -> str:
    settings = view.spec["settings"]
    which = "first seed" if seed == view.seeds[0] else f"seed {seed}" if seed else "first measured seed of each"
    mean = means_text(len(m.by_seed("loss_rise")) for m in found).lower()
    return sentences(
        f"Loss on {settings['samples']} samples of the {settings['split']} split, {which}; the same directions, range "
        f"and {'logarithmic ' if steep else ''}scale for all; cross: the trained weights. Rise: mean over the grid of "
        f"the loss minus that at the centre, {mean}", provenance_text(view),
    )
