"""What tuning gained, as files beside the page: numbers and the points of the curves for csv, a table in Markdown and in
LaTeX. The page's own table is made from the same lines (bench/report/tuning.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.analysis.results import Cell
from bench.analysis.stats import Paired
from bench.analysis.tuning import expected_best
from bench.matrix import Row
from bench.report.latex import FIT, escape
from bench.report.tables import Table, data_text
from bench.trails import PUBLISHED, Trail, lower_is_better


def curve(trail: Trail) -> Sequence[float]:
    """Expected best validation value of 1 .. N of the trials that were trained in full and gave one; [] where none did."""
    values = [x.value for x in trail.trials if x.value is not None and not x.rung]
    return expected_best(values, lower_is_better(trail.objective)).tolist() if values else []


def numbers(
    row: Row, trail: Trail, published: Cell, tuned: Cell, gain: Paired, over: tuple[Paired, Paired] | None, holm: float | None,
) -> dict[str, Any]:
    """One method's line of the csv. Means and differences in the printed unit, differences oriented: positive is better."""
    c, best = trail.config, trail.best()
    line = {
        "dataset": c.dataset, "backbone": row.backbone or c.backbone, "method": row.method, "variant": row.variant,
        "sampler": trail.sampler, "budget": trail.budget, "tuning_seeds": " ".join(map(str, trail.seeds)),
        "trials": len(trail.trials), "epochs": trail.epochs, "objective": trail.objective,
        "validation_published": trail.trials[PUBLISHED].value, "validation_chosen": best.value, "chosen_trial": best.number,
    }
    for name, cell in (("published", published), ("tuned", tuned)):
        line |= {f"{name}_mean": cell.mean, f"{name}_std": cell.std, f"{name}_n": cell.n} if cell.shown else {f"{name}_n": 0}
    for name, p in (("gain", gain), ("over_plain_published", over and over[0]), ("over_plain_tuned", over and over[1])):
        if p and p.n:
            line |= {name: p.difference, f"{name}_low": p.low, f"{name}_high": p.high}
    return line | {"p": over[1].p if over else None, "holm_p": holm, "settings": settings(best.settings), "config": best.config}


def settings(changed: Mapping[str, Any]) -> str:
    """What a trial changed, in a line."""
    def text(v: Any) -> str:
        return f"{v:g}" if isinstance(v, float) else "/".join(f"{k} {text(x)}" for k, x in v.items()) if isinstance(v, Mapping) else str(v)

    return ", ".join(f"{k} {text(v)}" for k, v in changed.items())


def points(lines: Sequence[tuple[Row, Trail]]) -> list[dict[str, Any]]:
    """The curves' points: expected best validation value of so many trials."""
    return [
        {"dataset": t.config.dataset, "backbone": row.backbone or t.config.backbone, "method": row.method, "variant": row.variant,
         "objective": t.objective, "trials": n, "expected_best_validation": value}
        for row, t in lines for n, value in enumerate(curve(t), 1)
    ]


def files(t: Table, tuning: Mapping[str, Any] | None, suite: str) -> dict[str, str | pd.DataFrame]:
    """Name -> content of an artefact's files; empty where nothing was tuned, so that those of an earlier report go."""
    stem = f"{t.experiment.id}-tuning"
    return {
        f"{stem}.csv": pd.DataFrame([n for b in tuning["blocks"] for n in b["numbers"]]) if tuning else "",
        f"{stem}-budget.csv": pd.DataFrame(tuning["points"]) if tuning else "",
        f"{stem}.md": _markdown(t, tuning) if tuning else "",
        f"{stem}.tex": _latex(t, tuning, suite) if tuning else "",
    }


def heads(tuning: Mapping[str, Any], base: str) -> tuple[str, ...]:
    """Headings of the columns after the method's."""
    shown = f"{tuning['split']} {tuning['metric']}"
    return (
        "validation, published", "validation, chosen", f"{shown}, published", f"{shown}, tuned", "gain of tuning",
        f"over {base}, published", f"over {base}, both tuned", "Holm p",
    )


def _cells(line: Mapping[str, Any]) -> list[str]:
    means = [f"{text} (n = {n})" if n else text for text, n in (line["published"], line["tuned"])]
    return [line["method"], *line["valid"], *means, line["gain"], line["before"], line["after"], line["p"]]


def _legend(tuning: Mapping[str, Any]) -> str:
    unequal = f" Not an equal fight: {tuning['unequal']}." if tuning["unequal"] else ""
    return (
        f"{tuning['how']}. {tuning['split'].capitalize()} values are of the evaluation's seeds, mean \u00b1 sample standard deviation; "
        f"differences are paired by seed, positive is better, with 95 % intervals; p is Holm-adjusted within a block.{unequal}"
    )


def _markdown(t: Table, tuning: Mapping[str, Any]) -> str:
    parts = [f"# {t.experiment.id}: what tuning gained"]
    if t.provenance == "synthetic":
        parts.append("**SYNTHETIC DATA: nothing here is a result.**")
    for b in tuning["blocks"]:
        rows = [[b["name"], *heads(tuning, b["base"]), "chosen"], ["---", *["---:"] * 8, "---"]]
        rows += [[*_cells(line), f"{line['chosen']} (trial {line['trial']} of {line['trials']})"] for line in b["lines"]]
        parts += [b["said"], "\n".join("| " + " | ".join(x.replace("|", "\\|") for x in r) + " |" for r in rows)]
    return "\n\n".join([*parts, f"{_legend(tuning)} Data: {data_text(t)}."]) + "\n"


def _latex(t: Table, tuning: Mapping[str, Any], suite: str) -> str:
    synthetic = t.provenance == "synthetic"
    body = []
    for b in tuning["blocks"]:
        body += ["\\midrule" if body else "\\toprule", " & ".join(map(escape, (b["name"], *heads(tuning, b["base"])))) + " \\\\", "\\midrule"]
        for line in b["lines"]:
            chosen = escape(f"Chosen: {line['chosen']} (trial {line['trial']} of {line['trials']})")
            body += [
                " & ".join(map(escape, _cells(line))) + " \\\\",
                f"\\multicolumn{{9}}{{@{{}}p{{1.6\\linewidth}}@{{}}}}{{\\scriptsize\\raggedright {chosen}}} \\\\[2pt]",
            ]
    said = "\\textbf{SYNTHETIC DATA, not a result.} " if synthetic else ""
    caption = f"{said}{escape(t.experiment.title)}: what tuning gained. {escape(_legend(tuning))} Data: {escape(data_text(t))}."
    return "\n".join((
        f"% {t.experiment.id}, what tuning gained, suite {suite}. Needs booktabs, graphicx, array, amssymb.",
        *(["% SYNTHETIC DATA: nothing in this file is a result."] if synthetic else []), FIT,
        "\\begin{table}[!htbp]\\centering\\small", f"\\caption{{{caption}}}\\label{{tab:{t.experiment.id}-tuning}}",
        "\\benchfit{\\begin{tabular}{@{}lrrrrrrrr@{}}", *body, "\\bottomrule", "\\end{tabular}}", "\\end{table}\n",
    ))
