"""LaTeX: one file per table in the papers' layout (booktabs), and one beside the reported numbers.

A table file needs booktabs, graphicx, array and amssymb in the document that inputs it. It scales itself down to the
line width and page height, so that no box is overfull.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bench.analysis.results import NOT_RUN, UNDEFINED, Cell
from bench.plural import count
from bench.remarks import DESCRIBED, Remark, remarks
from bench.report.layout import Line
from bench.report.tables import Table, data_text, number, runs_text
from bench.report.verdict import BETTER, BEYOND, INSIDE, NEAR, UNDECIDED, Judged
from bench.report.words import pretty

LONGEST = 60  # lines of a table before it is continued on another page

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u2212": "$-$",
    "\u00b1": r"$\pm$",
    "\u2192": r"$\rightarrow$", "\u2194": r"$\leftrightarrow$",
    "\u03b2": r"$\beta$", "\u03b3": r"$\gamma$", "\u03b7": r"$\eta$", "\u03c1": r"$\rho$", "\u03c9": r"$\omega$",
    "\u03c3": r"$\sigma$", "\u03b5": r"$\varepsilon$", **{chr(0x2080 + k): f"$_{k}$" for k in range(10)},
    "\u00b0": r"$^{\circ}$",
    "\u00a7": r"$\S$",
    "\u03b4": r"$\delta$",
    "\u03be": r"$\xi$",
    "\u03b1": r"$\alpha$",
    "\u03c4": r"$\tau$",
    "\u03bb": r"$\lambda$",
    "\u00d7": r"$\times$",
    "\u2265": r"$\geq$", "\u2260": r"$\neq$",
    "\u2264": r"$\leq$",
    "\u2026": r"\ldots{}",
    "\u2014": "---",
    "\u2013": "--",
}
_SIGN = {INSIDE: r"$\bullet$", NEAR: r"$\circ$", BEYOND: r"$\times$", BETTER: r"$\blacktriangle$", UNDECIDED: "?"}
FIT = r"""\ifdefined\benchbox\else\newsavebox{\benchbox}\fi
\providecommand{\benchfit}[1]{\sbox{\benchbox}{#1}%
  \ifdim\wd\benchbox>\linewidth\sbox{\benchbox}{\resizebox{\linewidth}{!}{\usebox{\benchbox}}}\fi
  \ifdim\dimexpr\ht\benchbox+\dp\benchbox\relax>0.78\textheight\resizebox*{!}{0.78\textheight}{\usebox{\benchbox}}%
  \else\usebox{\benchbox}\fi}"""


def escape(text: str) -> str:
    """Plain text for LaTeX; "->" becomes an arrow; what no Latin font has becomes "?"."""
    text = "".join(_SPECIAL.get(c, c if c.isprintable() else " ") for c in pretty(text))
    return text.encode("latin-1", "replace").decode("latin-1")


def table_file(table: Table, suite: str) -> str:
    """The table as the paper lays it out, with our numbers."""
    return _file(table, suite, _ours, "", _legend(table))


def comparison_file(table: Table, suite: str) -> str | None:
    """Ours over reported and difference; None where no cell may be compared."""
    if not any(math.isfinite(j.delta) for j in table.judged.values()):
        return None
    legend = "First line ours, second line reported and (ours minus reported)."
    if any(j.status for j in table.judged.values()):
        legend += (
            f" Against the 95\\,\\% prediction interval of our runs: {_SIGN[INSIDE]} inside, {_SIGN[NEAR]} worse by up "
            f"to two half-widths, {_SIGN[BEYOND]} worse by more, {_SIGN[BETTER]} better."
        )
    else:
        legend += " The data are not the published files, so no verdict is given."
    return _file(table, suite, _mean, ": ours and reported", legend, below=_reported)


def _legend(table: Table) -> str:
    e, n = table.experiment, len(table.grid.seeds)
    if not n:
        return "Settings of our configuration; italic: as the paper prints them, not in our configuration."
    if all(c.metric.endswith("_p_value") for c in e.columns):
        return f"Two-sided $p$ of $t$-tests over {count(n, 'seed')}, paired by seed, against the proposed method."
    words = [
        f"Mean $\\pm$ sample standard deviation (ddof = 1) over $n = {n}$ {'seed' if n == 1 else 'seeds'}; a smaller $n$ is printed with its "
        "cell."
    ]
    if any(c.best for _, _, c in table.grid):
        words.append("Bold: best of its block; underlined: second.")
    if e.primary and any(table.versus.values()):
        label = next((c.label for c in e.columns if c.metric == e.primary), e.primary)
        words.append(
            f"On {escape(label)}, Holm-adjusted paired $t$-tests, $p < 0.05$: * differs from the proposed method"
            ", $^{\\circ}$ from the backbone alone."
        )
    if any(not c.configs and table.judged[i, j].printed for i, j, c in table.grid):
        words.append("Italic: not run here, as reported.")
    return " ".join(words)


def _file(table: Table, suite: str, cell, suffix: str, legend: str, below=None) -> str:
    e = table.experiment
    synthetic = table.provenance == "synthetic"
    done, all_runs = table.progress["done"], sum(table.progress.values())
    state = "" if not all_runs else f"Data: {escape(data_text(table))}. {done} of {count(all_runs, 'run')} done." + (
        " Made with a test-only encoder." if table.test_only else "")
    parts = []
    lines, left = _run_lines(table)
    if signs := _variants(lines):
        named = "; ".join((f"{sign}: " if len(signs) > 1 else "") + escape(name) for name, sign in signs.items())
        legend += f" $^{{\\ddagger}}$: ran with other settings than the experiment's ({named}), outside of every comparison."
    said = remarks([e])
    if any(r.kind == DESCRIBED for r in said):
        legend += " $\\S$: of a system without public code, built from the description."
    legend += "".join(f" {escape(line)}." for line in table.unlearned)
    if left:
        legend += f" {count(left, 'row')} that nobody has run {'is' if left == 1 else 'are'} left out."
    for k, page in enumerate(_pages(lines)):
        caption = f"{escape(e.title)}{suffix}{' (continued)' if k else ''}. {legend} {state}"
        if synthetic:
            caption = f"\\textbf{{SYNTHETIC DATA, not a result.}} {caption}"
        parts.append("\n".join((
            "\\begin{table}[!htbp]\\centering\\small",
            *(["{\\bfseries SYNTHETIC DATA: nothing here is a result}\\par\\smallskip"] if synthetic else []),
            f"\\caption{{{caption}}}\\label{{tab:{e.id}{'-reported' if suffix else ''}{f'-{k + 1}' if k else ''}}}",
            f"\\benchfit{{{_tabular(table, page, cell, below, signs)}}}",
            *([_remarks(said)] if said else []),
            "\\end{table}",
        )))
    banner = "% SYNTHETIC DATA: nothing in this file is a result.\n" if synthetic else ""
    return (
        f"% {e.id}, suite {suite}. Needs booktabs, graphicx, array, amssymb.\n{banner}{FIT}\n"
        + "\n".join(parts)
        + "\n"
    )


def _remarks(said: Sequence[Remark]) -> str:
    """Under the table: which rows are not run and why, and which were built from a description."""
    words = " ".join(("$\\S$\\," if r.kind == DESCRIBED else "") + escape(r.sentence) for r in said)
    return f"\\par\\smallskip\\parbox{{\\linewidth}}{{\\footnotesize {words}}}"


def _run_lines(table: Table) -> tuple[list[Line], int]:
    """(lines that say something of runs or of the paper alone, how many others there are). The first line that is left
    of a block opens it."""
    def says(line: Line) -> bool:
        found = [at for at in line.cells if at]
        return not found or any(
            table.judged[at].printed if table.cell(at).state == NOT_RUN else table.cell(at).state != "missing" for at in found
        )

    kept, blocks = [], set()
    for line in table.layout.lines:
        if says(line):
            first = line.first if table.pivoted else line.row.block not in blocks
            kept.append(replace(line, first=first, again=line.again and not first))
            blocks.add(line.row.block)
    if not kept:  # nothing of it was run: its frame stands for all of it
        return list(table.layout.lines[:1]), len(table.layout.lines) - 1
    return kept, len(table.layout.lines) - len(kept)


def _pages(layout: Sequence[Line]) -> Iterable[list[Line]]:
    """The lines in portions of whole blocks, none longer than LONGEST unless a block is."""
    blocks: list[list[Line]] = []
    for line in layout:
        if line.first or not blocks:
            blocks.append([])
        blocks[-1].append(line)
    page: list[Line] = []
    for block in blocks:
        if page and len(page) + len(block) > LONGEST:
            yield page
            page = []
        page = page + block
    yield page


def _variants(lines: Sequence[Line]) -> dict[str, str]:
    """Name of a variant -> its sign in a table, numbered where there are several."""
    names = list(dict.fromkeys(line.row.departs for line in lines if line.row.departs))
    return {name: f"$^{{\\ddagger{k if len(names) > 1 else ''}}}$" for k, name in enumerate(names, 1)}


def _tabular(table: Table, lines: Sequence[Line], cell, below, signs: Mapping[str, str]) -> str:
    layout = table.layout
    merged = layout.stubs == ("Backbone", "Method") and all(ln.labels[1] == "plain" for ln in layout.lines if ln.first)
    stubs = ("Model",) if merged else layout.stubs
    out = [f"\\begin{{tabular}}{{@{{}}{'l' * len(stubs)}{'r' * len(layout.columns)}@{{}}}}", "\\toprule"]
    if len(layout.groups) > 1:
        cells, rules, at = [""] * len(stubs), [], len(stubs) + 1
        for name, count in layout.groups:
            cells.append(f"\\multicolumn{{{count}}}{{c}}{{{escape(name)}}}")
            rules.append(f"\\cmidrule(lr){{{at}-{at + count - 1}}}")
            at += count
        out += [" & ".join(cells) + " \\\\", "".join(rules)]
    arrow = {True: " $\\uparrow$", False: " $\\downarrow$"}
    heads = [escape(c.label) + ("" if c.source else arrow[c.higher_is_better]) for c in layout.columns]
    out += [" & ".join([*map(escape, stubs), *heads]) + " \\\\", "\\midrule"]
    for k, line in enumerate(lines):
        if line.first and k:
            out.append("\\midrule")
        labels = _stub(line, merged, k == 0)
        if line.row.departs and not table.pivoted:
            labels[-1] += signs[line.row.departs]
        if line.row.described and not table.pivoted:
            labels[-1] += r"\,$\S$"
        out.append(" & ".join([*labels, *(cell(table, at) for at in line.cells)]) + " \\\\")
        if below and any(second := [below(table, at) for at in line.cells]):
            out.append(" & ".join([""] * len(stubs) + second) + " \\\\[2pt]")
    return "\n".join([*out, "\\bottomrule", "\\end{tabular}"])


def _stub(line: Line, merged: bool, top: bool) -> list[str]:
    if merged:
        return [escape(line.labels[0] if line.first else f"+ {line.labels[1]}")]
    return [escape("" if line.again and not top and k == 0 else label) for k, label in enumerate(line.labels)]


def _ours(table: Table, at: tuple[int, int], spread: bool = True) -> str:
    if at is None:
        return ""
    cell, column, judged = table.cell(at), table.experiment.columns[at[1]], table.judged[at]
    if not cell.shown:
        return _hole(cell, judged)
    text = escape(cell.text) or _minus(number(cell.mean, column))
    text = f"\\textbf{{{text}}}" if cell.best else f"\\underline{{{text}}}" if cell.second else text
    if spread and math.isfinite(cell.std):
        text += f"\\,{{\\scriptsize$\\pm$\\,{number(cell.std, column)}}}"
    marks = table.mark(at).replace("\u00b0", "\\circ")
    n = f"\\,{{\\tiny({runs_text(cell)})}}" if cell.n != cell.wanted and not cell.derived else ""
    return text + (f"$^{{{marks}}}$" if marks else "") + n


def _mean(table: Table, at: tuple[int, int]) -> str:
    """Our mean without its spread, which is in the other table: two numbers a cell are readable, three are not."""
    return _ours(table, at, spread=False)


def _hole(cell: Cell, judged: Judged) -> str:
    if cell.state == NOT_RUN:
        return f"\\textit{{{_minus(escape(judged.printed.text))}}}" if judged.printed else ""
    if cell.state == UNDEFINED:
        return f"{{\\scriptsize undefined {cell.undefined}/{cell.wanted}}}"
    return "--" if cell.state == "missing" else f"{{\\scriptsize {cell.state}}}"


def _reported(table: Table, at: tuple[int, int]) -> str:
    if at is None:
        return ""
    cell, column, judged = table.cell(at), table.experiment.columns[at[1]], table.judged[at]
    if judged.printed is None or not cell.configs:
        return ""
    text = escape(judged.printed.text) + ("$^{\\dagger}$" if judged.printed.elsewhere else "")
    if math.isfinite(judged.delta):
        text += f" ({_minus(number(judged.delta, column, sign=True))}) {_SIGN.get(judged.status, '')}"
    return f"{{\\footnotesize {text}}}"


def _minus(text: str) -> str:
    return text.replace("\u2212", "$-$").replace("+", "$+$")
