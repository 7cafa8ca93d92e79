"""A small picture for the first screen: one line per method, our values as dots, the paper's as a diamond."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape


@dataclass(frozen=True)
class Mark:
    """One line. `ours`: one value per comparison; `reported` NaN where the paper prints none."""

    label: str
    ours: Sequence[float]
    reported: float
    strong: bool = False


_WIDTH, _LABELS, _LINE = 380, 112, 19


def dots(marks: Sequence[Mark], title: str) -> str:
    """The picture as SVG; its scale holds every value and zero."""
    values = [v for m in marks for v in (*m.ours, m.reported) if math.isfinite(v)]
    low, high = min([0.0, *values]), max([0.0, *values])
    pad = 0.06 * (high - low) or 1.0
    low, high = low - pad, high + pad
    height = _LINE * len(marks) + 26

    def x(v: float) -> float:
        return _LABELS + (_WIDTH - _LABELS - 8) * (v - low) / (high - low)

    out = [f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="2" y2="{height - 20}"/>']
    for k, m in enumerate(marks):
        y = 12 + _LINE * k
        out.append(f'<line class="track" x1="{_LABELS}" x2="{_WIDTH - 6}" y1="{y}" y2="{y}"/>')
        out.append(f'<text class="{"strong" if m.strong else ""}" x="{_LABELS - 8}" y="{y + 4}" text-anchor="end">{escape(_short(m.label))}</text>')
        if math.isfinite(m.reported):
            out.append(f'<path class="rep" d="M{x(m.reported):.1f} {y - 5}l5 5l-5 5l-5 -5z"/>')
        if len(m.ours) > 1:
            out += [f'<circle class="one" cx="{x(v):.1f}" cy="{y}" r="2.2"/>' for v in m.ours]
        if m.ours:
            out.append(f'<circle class="our" cx="{x(sum(m.ours) / len(m.ours)):.1f}" cy="{y}" r="4.4"/>')
    for v in _ticks(low, high):
        out.append(f'<text class="tick" x="{x(v):.1f}" y="{height - 6}" text-anchor="middle">{_tick(v)}</text>')
    return (
        f'<svg class="dots" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">' + "".join(out) + "</svg>"
        f'<p class="dots-title">{escape(title)}: <i class="our"></i>ours'
        + ('<i class="rep"></i>reported' if any(math.isfinite(m.reported) for m in marks) else "") + "</p>"
    )


def _short(label: str) -> str:
    return label if len(label) <= 17 else label[:16] + "\u2026"


def _tick(v: float) -> str:
    return f"{v:g}".replace("-", "\u2212")


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round values with zero among them."""
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(s for s in (step, 2 * step, 5 * step, 10 * step) if (high - low) / s <= 4.5)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
