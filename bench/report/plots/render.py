"""A drawing as PDF for print and as SVG for the page. Both are bytes of their content alone: no time, no version."""

import io
import re

from markupsafe import escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench.report.plots.style import DARK, INK, PAPER

_STYLE = re.compile(r'style="([^"]*)"')
_HEX = re.compile(r"#[0-9a-f]{6}\b")
_FONT = re.compile(r"font-family: [^;\"]+")
_LONG = re.compile(r"(\d\.\d{2})\d+(?=[\s\",)])")  # a hundredth of a point is enough
_PAGE = {INK: "currentColor", PAPER: "var(--paper, #ffffff)"} | {c: f"light-dark({c}, {d})" for c, d in DARK.items()}


def freeze(figure: Figure) -> None:
    """Work out the layout once; the drawings after it keep it."""
    FigureCanvasAgg(figure)
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine("none")


def pdf(figure: Figure) -> bytes:
    """Vector PDF with embedded TrueType fonts."""
    buffer, resolution = io.BytesIO(), figure.dpi
    nothing = {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None}
    FigureCanvasPdf(figure).print_pdf(buffer, metadata=nothing)
    figure.dpi = resolution  # of what is rasterised; both printers leave 72
    return buffer.getvalue()


def svg(figure: Figure, title: str) -> str:
    """SVG to stand inside the page: scales with its box, text in the page's font, ink and paper of the page's theme,
    other colours with a lighter twin on a dark page. No style sheet of its own, which would reach the whole page."""
    buffer, resolution = io.StringIO(), figure.dpi
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    figure.dpi = resolution
    text = buffer.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r"<defs>\s*<style type=\"text/css\">.*?</style>\s*</defs>\s*", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r'base64,[^"]*', lambda m: re.sub(r"\s", "", m[0]), text)
    text = re.sub(r"<[^>]*>", lambda m: _LONG.sub(r"\1", m[0]), text)
    text = re.sub(r"\s*\n\s*", lambda m: "\n" if text[m.start() - 1] == ">" else " ", text)
    text = _STYLE.sub(lambda m: f'style="{_themed(m[1])}"', text)
    box = re.search(r'viewBox="([^"]+)"', text)[1]
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" role="img" aria-label="{escape(title)}" fill="currentColor" '
        'style="stroke-linejoin: round; stroke-linecap: butt">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1).strip()


def _themed(style: str) -> str:
    style = _FONT.sub("font-family: var(--sans, sans-serif)", style)
    return _HEX.sub(lambda m: _PAGE.get(m[0], m[0]), style)
