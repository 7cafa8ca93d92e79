"""Curves of trainings, drawn light enough for a page that is rendered again every few seconds: what jobs that are being
trained have told so far, and the whole history of one that has ended."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import escape

from bench.matrix import Job
from bench.store import Store

Points = Sequence[tuple[float, float]]  # (epoch, value)
_TOLD = re.compile(r"^epoch (-?\d+) train (\S+) valid (\S+)")
_MOST = 12  # trainings that a page shows at once
_WIDTH, _HEIGHT, _LEFT, _BELOW = 260, 110, 40, 18


def told(lines: Iterable[str]) -> dict[str, list[tuple[float, float]]]:
    """{"train": points, "valid": points} from the lines of a training ("epoch 7 train 1.0321 valid 1.1020 avg ...")."""
    found: dict[str, list[tuple[float, float]]] = {"train": [], "valid": []}
    for m in filter(None, map(_TOLD.match, lines)):
        for name, text in zip(found, m.groups()[1:]):
            try:
                found[name].append((float(m[1]), float(text)))
            except ValueError:
                continue
    return found


def in_training(store: Store, jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """What the page shows of jobs that are being trained now: name, seed, the last line, a picture. The ones with the most
    epochs first, and no more than a page holds."""
    found, lines_of = [], store.told()
    for job in jobs if lines_of else ():
        lines = lines_of.get(job.id, [])
        c, curves = job.config, told(lines)
        if curves["valid"]:
            name = f"{c.dataset} {c.backbone}+{c.mixer}"
            found.append({"name": name, "seed": job.seed, "line": lines[-1], "epochs": len(curves["valid"]),
                          "svg": svg(curves, f"loss of {name}, seed {job.seed}")})
    return sorted(found, key=lambda r: -r["epochs"])[:_MOST]


def svg(series: Mapping[str, Points], title: str, mark: float | None = None) -> str:
    """Lines over epochs. The first series is drawn thin, the others strong; `mark`: an epoch with a line of its own.
    Values that are not finite leave a gap. "" where no series has two points and none has one."""
    points = {k: [(x, y) for x, y in v if math.isfinite(x) and math.isfinite(y)] for k, v in series.items()}
    xs, ys = ([p[i] for v in points.values() for p in v] for i in (0, 1))
    if not xs:
        return ""
    low, high = min(ys), max(ys)
    pad = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    low, high, first, last = low - pad, high + pad, min(xs), max(xs)

    def x(v: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 8) * ((v - first) / (last - first) if last > first else 0.5)

    def y(v: float) -> float:
        return 4 + (_HEIGHT - _BELOW - 4) * (high - v) / (high - low)

    out = [f'<line class="track" x1="{_LEFT}" x2="{_WIDTH - 6}" y1="{_HEIGHT - _BELOW}" y2="{_HEIGHT - _BELOW}"/>']
    if mark is not None and first <= mark <= last:
        out.append(f'<line class="zero" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="4" y2="{_HEIGHT - _BELOW}"/>')
    for k, (name, line) in enumerate(points.items()):
        css = "thin" if k == 0 and len(points) > 1 else "strong"
        if len(line) == 1:
            out.append(f'<circle class="{css}" cx="{x(line[0][0]):.1f}" cy="{y(line[0][1]):.1f}" r="2.4"/>')
        elif line:
            path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in line)
            out.append(f'<path class="{css}" d="M{path}"><title>{escape(name)}</title></path>')
    for v in (low + pad, high - pad) if high - low > 2.5 * pad else ((low + high) / 2,):
        out.append(f'<text class="tick" x="{_LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{_short(v)}</text>')
    for v in dict.fromkeys((first, last)):
        out.append(f'<text class="tick" x="{x(v):.1f}" y="{_HEIGHT - 4}" text-anchor="middle">{v:g}</text>')
    return f'<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(out)}</svg>'


def scatter(label: Sequence[float], prediction: Sequence[float], title: str) -> str:
    """Predictions over labels, one dot a sample, with the diagonal."""
    pairs = [(a, b) for a, b in zip(label, prediction) if math.isfinite(a) and math.isfinite(b)]
    if not pairs:
        return ""
    low, high = min(map(min, pairs)), max(map(max, pairs))
    span, size = high - low or 1.0, 240

    def at(v: float) -> float:
        return 30 + (size - 36) * (v - low) / span

    dots = "".join(f'<circle cx="{at(a):.1f}" cy="{size - at(b):.1f}" r="1.8"/>' for a, b in pairs)
    ticks = "".join(
        f'<text class="tick" x="{at(v):.1f}" y="{size - 6}" text-anchor="middle">{_short(v)}</text>'
        f'<text class="tick" x="24" y="{size - at(v) + 4:.1f}" text-anchor="end">{_short(v)}</text>' for v in (low, high)
    )
    line = f'<line class="zero" x1="{at(low):.1f}" y1="{size - at(low):.1f}" x2="{at(high):.1f}" y2="{size - at(high):.1f}"/>'
    return f'<svg class="curves cloud" viewBox="0 0 {size} {size}" role="img" aria-label="{escape(title)}">{line}{dots}{ticks}</svg>'


def _short(v: float) -> str:
    return f"{v:.3g}".replace("-", "\u2212")
