"""The report in a real browser: nothing leaves the page, nothing overflows, everything that can be clicked works."""

import os

import pytest

from bench.report.build import build
from tests import planted
from tests.chromium import BINARY, Chromium

pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")

CELL = "msmix-t1.mult.manifold-mix.mosi.avg"
ROWS = "[...document.querySelectorAll('table.results tbody tr')]"
VISIBLE_ROWS = f"{ROWS}.filter(r => r.offsetParent).map(r => r.dataset.backbone + ' ' + r.dataset.method)"
VISIBLE_HEADS = (
    "[...document.querySelectorAll('table.results thead th:not(.stub)')].filter(h => !h.hidden).map(h => h.dataset.k)"
)
SETTLED = "new Promise(done => setTimeout(done, 60))"


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    real, os.fsync = os.fsync, lambda _: None
    p = planted.write(tmp_path_factory.mktemp("results"))
    page = build([p.experiment], p.store, tmp_path_factory.mktemp("report"), "real", p.hashes, reported=p.reported)
    os.fsync = real
    return page.as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def tab(chromium, url):
    chromium.open(url)
    return chromium


def pick(tab, name: str, value: str) -> None:
    tab.js(
        f"(e => {{ e.value = {value!r}; e.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
        f"(document.querySelector('[data-filter={name}]'))"
    )


@pytest.mark.parametrize("width, dark", [(1280, False), (1280, True), (390, False), (390, True)])
def test_nothing_leaves_the_page_and_nothing_overflows(chromium, url, width, dark):
    chromium.open(url, width, dark=dark)
    chromium.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
    chromium.js(SETTLED)
    assert chromium.js("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    chromium.js(f"location.hash = '{CELL}'")
    chromium.js(SETTLED)
    assert chromium.js("document.documentElement.scrollWidth") == width
    assert [u for u in chromium.requests() if not u.startswith("data:")] == [url]
    assert chromium.errors() == []
    background = chromium.js("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 23, 26)") == dark


def test_wide_tables_scroll_in_their_own_box(chromium, url):
    chromium.open(url, 390)
    box = "document.querySelector('section.artefact .scroll')"
    assert chromium.js(f"{box}.scrollWidth > {box}.clientWidth")
    chromium.js(f"{box}.scrollTo(300, 400)")
    chromium.js(SETTLED)
    stub = "document.querySelectorAll('table.results tbody th')[12].getBoundingClientRect().left"
    head = "document.querySelector('table.results thead').getBoundingClientRect().top"
    assert abs(chromium.js(f"{stub} - {box}.getBoundingClientRect().left")) < 2  # the row's name stays
    assert abs(chromium.js(f"{head} - {box}.getBoundingClientRect().top")) < 4  # and the header


def test_header_sticks_to_the_page_where_the_table_fits(tab):
    tab.js(
        "document.querySelectorAll('table.results tbody tr')[12].scrollIntoView({block: 'start', behavior: 'instant'})"
    )
    tab.js(SETTLED)
    gap = tab.js(
        "document.querySelector('table.results thead').getBoundingClientRect().top"
        " - document.querySelector('.bar').getBoundingClientRect().bottom"
    )
    assert abs(gap) < 3


def test_filters_hide_rows_and_columns(tab):
    assert len(tab.js(VISIBLE_ROWS)) == 20
    pick(tab, "backbone", "LMF")
    assert tab.js(VISIBLE_ROWS) == [f"LMF {m}" for m in planted.METHODS]
    pick(tab, "method", "MS-Mix")
    assert tab.js(VISIBLE_ROWS) == ["LMF MS-Mix"]
    pick(tab, "backbone", "")
    pick(tab, "metric", "mae")
    assert tab.js(VISIBLE_HEADS) == ["mae"] and len(tab.js(VISIBLE_ROWS)) == 4
    pick(tab, "method", "")
    pick(tab, "text", "tfn pow")
    assert tab.js(VISIBLE_ROWS) == ["TFN PowMix"]
    pick(tab, "text", "no such row")
    assert tab.js("document.getElementById('msmix-t1').hidden")
    pick(tab, "text", "")
    pick(tab, "metric", "")
    assert len(tab.js(VISIBLE_ROWS)) == 20 and len(tab.js(VISIBLE_HEADS)) == 4


def test_a_column_sorts_best_first_then_worst_then_as_the_paper_does(tab):
    button = "table.results thead th[data-k='avg'] button"
    values = f"{ROWS}.map(r => r.querySelector('[data-k=avg]').dataset.v).filter(Boolean).map(Number)"
    first = tab.js(VISIBLE_ROWS)
    tab.click(button)
    assert tab.js(values) == sorted(tab.js(values), reverse=True) and tab.js(VISIBLE_ROWS)[0] == "TFN MS-Mix"
    assert tab.js(VISIBLE_ROWS)[-1].startswith("GLoMo")  # what has no value of ours comes last
    tab.click(button)
    assert tab.js(values) == sorted(tab.js(values)) and tab.js(VISIBLE_ROWS)[-1].startswith("GLoMo")
    tab.click(button)
    assert tab.js(VISIBLE_ROWS) == first
    tab.click("table.results thead th[data-k='mae'] button")
    assert tab.js("document.querySelector('table.results thead th[data-k=mae]').ariaSort") == "ascending"


def test_a_deep_link_opens_its_cell(chromium, url):
    for width in (1280, 390):
        chromium.open(f"{url}#{CELL}", width)
        chromium.js(SETTLED)
        panel = chromium.js("document.querySelector('.panel').innerText")
        assert (
            "MulT + Manifold Mix" in panel
            and "seed 1111: failed" in panel
            and "loss is not finite in epoch 3" in chromium.js("document.querySelector('.panel').textContent")
        )
        assert "--retry-failed" in panel and "1111\tfailed" in panel
        cell, sheet = (
            f"document.{q}.getBoundingClientRect()" for q in (f"getElementById('{CELL}')", "querySelector('.panel')")
        )
        inside = chromium.js(f"{cell}.top >= 0 && {cell}.bottom <= innerHeight && {cell}.left >= 0")
        clear = chromium.js(f"{cell}.right <= {sheet}.left + 1 || {cell}.bottom <= {sheet}.top + 1")
        assert inside and clear, width


def test_keyboard_reaches_opens_and_closes_cells(tab):
    tab.js("document.querySelector('table.results td.cell').focus()")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowUp"):
        tab.key(key)
    assert tab.js("document.activeElement.id") == "msmix-t1.tfn.plain.mosi.corr"
    tab.key("Enter")
    assert (
        not tab.js("document.querySelector('.panel').hidden")
        and tab.js("location.hash") == "#msmix-t1.tfn.plain.mosi.corr"
    )
    tab.key("Escape")
    assert tab.js("document.querySelector('.panel').hidden")
    assert tab.js("document.activeElement.id") == "msmix-t1.tfn.plain.mosi.corr"


def test_hover_shows_the_seeds(tab):
    tab.js(
        "document.getElementById('msmix-t1.mult.powmix.mosi.corr')"
        ".scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    x, y = tab.js(
        "(r => [r.x + 9, r.y + 9])(document.getElementById('msmix-t1.mult.powmix.mosi.corr').getBoundingClientRect())"
    )
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    lines = tab.js("[...document.querySelectorAll('.tip tr')].map(r => [...r.cells].map(c => c.textContent))")
    assert len(lines) == 5 and lines[1] == ["1112", "undefined"] and lines[0][1].startswith("0.")


def test_the_rerun_command_is_copied(tab):
    tab.js(
        "window.copied = null; Object.defineProperty(navigator, 'clipboard',"
        " {value: {writeText: async t => { window.copied = t }}})"
    )
    tab.js("document.querySelector('tr[data-backbone=MulT] .rerun').style.opacity = 1")
    tab.click("tr[data-backbone=MulT] .rerun")
    assert tab.js("window.copied").startswith("bench run msmix-t1 --suite real --only '")


def test_views_and_theme_switch(tab):
    tab.click(".views [data-view=difference]")
    cell = "document.getElementById('msmix-t1.tfn.manifold-mix.mosi.avg').innerText.trim()"
    assert tab.js(cell).startswith("−5.") and "71.00" not in tab.js(cell)
    tab.click(".views [data-view=ours]")
    assert "71.00" not in tab.js(cell) and tab.js(cell).startswith("65.")
    tab.click("[data-theme-switch]")
    assert tab.js("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    tab.js("try { localStorage.removeItem('bench-theme') } catch (e) { 0 }")


def test_print_shows_everything_on_white(tab):
    tab.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert tab.js("getComputedStyle(document.querySelector('thead button')).display") == "contents", "else no page repeats the header"
    assert tab.js("getComputedStyle(document.querySelector('.bar')).display") == "none"
    assert tab.js("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"
    assert tab.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.call("Emulation.setEmulatedMedia", media="", features=[])


@pytest.mark.parametrize("width", [1280, 1920])
def test_the_drawer_leaves_the_clicked_cell_in_sight(chromium, url, width):
    chromium.open(url, width)
    for cell in ("msmix-t1.mult.ms-mix.mosi.avg", "msmix-t1.tfn.plain.mosi.non0_acc2"):
        chromium.js(f"document.getElementById('{cell}').click()")
        chromium.js(SETTLED)
        cell_right, panel_left, cell_left = chromium.js(
            f"(e => [e.getBoundingClientRect().right, document.querySelector('.panel').getBoundingClientRect().left, e.getBoundingClientRect().left])(document.getElementById('{cell}'))"
        )
        assert cell_right <= panel_left and cell_left >= 0
    assert chromium.js("document.querySelectorAll('.panel .strip text').length") >= 2, "the dots have an axis"


def test_a_phone_has_no_box_that_scrolls_up_and_down_in_the_page(chromium, url):
    chromium.open(url, 390)
    chromium.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
    chromium.js(SETTLED)
    assert chromium.js("[...document.querySelectorAll('.scroll')].filter(s => s.scrollHeight > s.clientHeight + 2).length") == 0
