"""The one style of the figures, the mixers' illustration, and figures on the page."""

import itertools
import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from scipy.spatial import Delaunay

from bench.experiments import all_experiments
from bench.mixers.illustrate import generate
from bench.report.build import build
from bench.report.plots import style
from tests import planted_figures
from tests.chromium import BINARY, Chromium

MIXERS = ("plain", "Manifold Mix", "MultiMix", "AdvMixUp", "PowMix", "MS-Mix")
POINTS = all_experiments()["powmix-f2"].figure["points"]
VISION = {  # linear RGB seen without the long- or the middle-wave cones (Machado et al. 2009, severity 1)
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


def linear(colour: str) -> np.ndarray:
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(colour: str, vision: str) -> np.ndarray:
    """CIE L*a*b* (D65) as somebody with this vision sees it."""
    rgb = np.clip(np.array(VISION[vision]) @ linear(colour), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    f = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 1e-4))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def test_every_method_has_a_colour_of_its_own_and_another_sign():
    looks = list(style.METHODS.values())
    assert len({x.colour for x in looks}) == len(looks) == len({style.DARK[x.colour] for x in looks})
    for a, b in itertools.combinations(MIXERS, 2):
        one, two = style.look(a), style.look(b)
        assert one.marker != two.marker and one.line != two.line
    labels = {r.method for e in all_experiments().values() if e.kind == "figure" for r in e.rows}
    assert {style.look(m).colour for m in labels}.isdisjoint({style.INK})
    assert style.look("none") == style.look("plain")


@pytest.mark.parametrize("vision", VISION)
def test_mixers_stay_apart_for_colour_blind_readers(vision):
    seen = {m: lab(style.look(m).colour, vision) for m in MIXERS}
    apart = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(MIXERS, 2)}
    assert min(apart.values()) > 8, min(apart, key=apart.get)


def test_colours_stand_out_on_white_and_their_twins_on_a_dark_page():
    for colour, twin in style.DARK.items():
        assert 1.05 / (luminance(colour) + 0.05) > 2.9, colour
        assert (luminance(twin) + 0.05) / (luminance("#14171a") + 0.05) > 4, twin


def test_the_style_leaves_no_trace_and_heeds_no_other():
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path"}):
        with style.drawing():
            assert matplotlib.rcParams["font.size"] == 7 and matplotlib.rcParams["svg.fonttype"] == "none"
        assert matplotlib.rcParams["font.size"] == 20


def test_names_of_parameters_are_printed_as_letters():
    assert style.symbols("tau = 0.1") == "\u03c4 = 0.1" and style.symbols("(c) alpha_mix") == "(c) \u03b1_mix"
    assert style.symbols("alphabet") == "alphabet"


def test_reports_need_neither_torch_nor_a_global_figure():
    code = (
        "import sys, importlib, bench.report.figures as f;"
        "[importlib.import_module(f'bench.report.plots.{k}') for k in f.KINDS];"
        "print({'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# --- the seven points of PowMix Figure 2 ----------------------------------------------------------------------------

@pytest.mark.parametrize("mixes", [2, 3, 4, 7, None])
def test_mixtures_lie_in_the_hull_of_their_points(mixes):
    found = generate(POINTS, mixes, 500, 0).numpy()
    centre = np.mean(POINTS, axis=0)
    inside = centre + (found - centre) * (1 - 1e-9)  # rounding may put a mixture of two corners just outside
    assert found.shape == (500, 2) and (Delaunay(POINTS).find_simplex(inside) >= 0).all()
    np.testing.assert_array_equal(found, generate(POINTS, mixes, 500, 0).numpy())


def distance_to_segments(found: np.ndarray) -> np.ndarray:
    """Of each point from the nearest segment between two of the given points."""
    best = np.full(len(found), np.inf)
    for a, b in itertools.combinations(np.array(POINTS), 2):
        t = np.clip((found - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        best = np.minimum(best, np.linalg.norm(found - (a + t[:, None] * (b - a)), axis=1))
    return best


def test_mixup_stays_on_segments_and_the_others_leave_them():
    assert distance_to_segments(generate(POINTS, 2, 500, 0).numpy()).max() < 1e-12
    for mixes in (3, 4, 7):
        assert np.median(distance_to_segments(generate(POINTS, mixes, 500, 0).numpy())) > 0.01


def test_more_points_mean_less_spread():
    spread = [generate(POINTS, n, 2000, 0).std(0).sum().item() for n in (2, 3, 4, 7)]
    assert spread == sorted(spread, reverse=True)


# --- the page -------------------------------------------------------------------------------------------------------

@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
def test_figures_fit_the_page_in_both_themes(tmp_path):
    real, os.fsync = os.fsync, lambda _: None
    e = planted_figures.experiment("powmix-f3")
    store = planted_figures.write(tmp_path / "results", e, 2)
    page = build([e], store, tmp_path / "report", "paper", seeds=2)
    os.fsync = real
    browser = Chromium(tmp_path / "profile")
    svg = "document.querySelector('.plot svg')"
    try:
        for width, dark in ((1280, False), (390, True)):
            browser.open(page.as_uri(), width, dark=dark)
            assert browser.js("document.documentElement.scrollWidth") == width and browser.errors() == []
            assert browser.js(f"{svg}.getBoundingClientRect().width") >= 600  # a phone scrolls the figure, not the page
            ink = browser.js(f"getComputedStyle({svg}.querySelector('text')).fill")
            strokes = browser.js(f"[...{svg}.querySelectorAll('path')].map(p => getComputedStyle(p).stroke)")
            assert ink == browser.js("getComputedStyle(document.body).color") and ink in strokes
            colour = style.look("PowMix").colour
            shown = [round(255 * v) for v in to_rgb(style.DARK[colour] if dark else colour)]
            assert f"rgb({shown[0]}, {shown[1]}, {shown[2]})" in strokes
        outside = browser.js(
            f"(box => [...{svg}.querySelectorAll('text')].filter(t => {{ const r = t.getBoundingClientRect();"
            f" return r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 ||"
            f" r.bottom > box.bottom + 1 }}).map(t => t.textContent))({svg}.getBoundingClientRect())"
        )
        assert outside == []
    finally:
        browser.close()
