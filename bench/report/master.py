"""The LaTeX document that holds every table and figure of a report."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.plural import count
from bench.report.latex import escape
from bench.report.tables import Table

WIDE = 11  # printed columns from which on the page is turned

_MASTER = r"""\documentclass[10pt,a4paper]{article}
\usepackage[utf8]{inputenc}
\IfFileExists{lmodern.sty}{\usepackage[T1]{fontenc}\usepackage{lmodern}}{}
\usepackage[margin=18mm]{geometry}
\usepackage{amssymb,array,booktabs,graphicx,pdflscape}
\usepackage[font=small,labelfont=bf]{caption}
\usepackage[hidelinks]{hyperref}
\emergencystretch=2em
\setcounter{totalnumber}{4}\renewcommand{\floatpagefraction}{0.6}
\renewcommand{\topfraction}{0.9}\renewcommand{\textfraction}{0.05}
"""
_HEADER = r"\usepackage{fancyhdr}\pagestyle{fancy}\fancyhf{}\fancyfoot[C]{\thepage}\renewcommand{\headrulewidth}{0pt}"
_BANNER = r"\begin{center}\large\textbf{SYNTHETIC DATA: nothing in this document is a result}\end{center}"
_OVERFULL = re.compile(r"Overfull \\[hv]box \((\d+\.?\d*)pt")


def master_file(
    tables: Sequence[Table], files: Mapping[str, Sequence[str]],
    figures: Mapping[str, Sequence[tuple[str, str]]], suite: str,
) -> str:
    """The document. files: artefact -> names of its table files; figures: artefact -> (pdf, caption)."""
    synthetic = any(t.provenance == "synthetic" for t in tables)
    parts = [_part(t, files.get(t.experiment.id, ()), figures.get(t.experiment.id, ())) for t in tables]
    return "\n".join((
        _MASTER.rstrip(), _HEADER + (r"\fancyhead[C]{\textbf{SYNTHETIC DATA}}" if synthetic else ""),
        r"\begin{document}", *([_BANNER] if synthetic else []),
        f"\\section*{{Tables and figures, suite {escape(suite)}}}", r"\tableofcontents", *parts, "\\end{document}\n",
    ))


def _part(t: Table, files: Sequence[str], figures: Sequence[tuple[str, str]]) -> str:
    """One artefact: heading, tables or figures, choices of ours."""
    e = t.experiment
    title = f"{escape(e.id)}: {escape(e.title)}"
    lines = [f"\\section*{{{title}}}\\addcontentsline{{toc}}{{section}}{{{title}}}"]
    if e.kind == "table":
        lines += [f"\\input{{{name}}}" for name in files]
    for pdf, caption in figures:
        lines.append(
            "\\begin{figure}[!htbp]\\centering"
            f"\\includegraphics[width=\\linewidth,height=0.8\\textheight,keepaspectratio]{{{pdf}}}"
            f"\\caption*{{{escape(caption)}}}\\end{{figure}}"
        )
    undrawn = e.kind == "figure" and not figures
    if undrawn:
        lines.append(f"\\emph{{Not drawn: {t.progress['done']} of {count(sum(t.progress.values()), 'run is', 'runs are')} done.}}\\par")
    if e.notes:
        lines += [r"\paragraph{What the paper leaves open and what we chose}", r"\begin{itemize}"]
        lines += [*(f"\\item {escape(n)}" for n in e.notes), r"\end{itemize}"]
    text = "\n".join(lines)
    if e.kind == "table" and len(t.layout.columns) >= WIDE:
        return f"\\begin{{landscape}}\n{text}\n\\end{{landscape}}"
    return text if undrawn else f"\\clearpage\n{text}"


def overfull(log: str | Path) -> float:
    """The widest overfull box, in points, that a pdflatex log reports; 0 where there is none."""
    text = log.read_text(encoding="latin-1") if isinstance(log, Path) else log
    return max(map(float, _OVERFULL.findall(text)), default=0.0)
