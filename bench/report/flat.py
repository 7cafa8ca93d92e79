"""A table's flat forms: every cell on a line of its own for the csv, and a Markdown page."""

import math

import pandas as pd

from bench.analysis.results import provenance
from bench.remarks import DESCRIBED, SIGN, remarks
from bench.report.tables import Table, data_text, number, runs_text, state_text


def frame(table: Table) -> pd.DataFrame:
    """Every cell on a line of its own, numbers in full precision."""
    e, lines = table.experiment, []
    for i, j, cell in table.grid:
        row, column, judged = e.rows[i], e.columns[j], table.judged[i, j]
        against = {k: table.versus[k].get((i, j)) for k in ("proposed", "plain")}
        lines.append(
            {
                "cell": table.anchor((i, j)),
                "artefact": e.id,
                "block": row.block,
                "group": column.group,
                "backbone": row.backbone,
                "method": row.method,
                "variant": row.variant,
                "settings": row.departs,
                "described": row.described,
                "not_run": row.unrun,
                "metric": column.metric,
                "label": column.label,
                "convention": column.convention,
                "state": cell.state,
                "n": cell.n,
                "wanted": cell.wanted,
                "mean": cell.mean,
                "std_ddof1": cell.std,
                "std_ddof0": cell.spread(0),
                "valid_mean": cell.valid_mean,
                "best": cell.best,
                "second": cell.second,
                "seeds": ";".join(f"{s}:{v:.6g}" for s, v in zip(cell.seeds, cell.values) if math.isfinite(v)),
                "reported": judged.printed.mean if judged.printed else None,
                "reported_std": judged.printed.std if judged.printed else None,
                "delta": judged.delta,
                "half_width": judged.half_width,
                "verdict": judged.status,
                "no_verdict": judged.why,
                **{
                    f"{what}_{k}": getattr(c, what) if c else None
                    for k, c in against.items()
                    for what in ("difference", "p", "holm")
                },
                "provenance": provenance(table.results.finished(cell)),
                "config": " ".join(c.id for c in cell.configs),
            }
        )
    return pd.DataFrame(lines)


def markdown(table: Table) -> str:
    """The table as a Markdown page."""
    e, layout = table.experiment, table.layout
    heads = [*layout.stubs]
    for (group, count) in layout.groups:
        start = len(heads) - len(layout.stubs)
        heads += [
            f"{group} {c.label}".strip() if len(layout.groups) > 1 else c.label
            for c in layout.columns[start : start + count]
        ]
    rows = [
        [*line.labels[:-1], " ".join(filter(None, (
            line.labels[-1], SIGN * bool(line.row.described and not table.pivoted), line.row.departs and f"[{line.row.departs}]",
        ))),
         *(_markdown_cell(table, at) for at in line.cells)]
        for line in layout.lines
    ]
    rule = ["---"] * len(layout.stubs) + ["---:"] * len(layout.columns)
    body = "\n".join("| " + " | ".join(str(x).replace("|", "\\|") for x in r) + " |" for r in (heads, rule, *rows))
    notes = (
        f"Data: {data_text(table)}. Mean \u00b1 sample standard deviation (ddof = 1), n = {len(table.grid.seeds)} "
        "seeds unless a cell says otherwise."
    )
    banner = "**SYNTHETIC DATA: nothing here is a result.**\n\n" if table.provenance == "synthetic" else ""
    said = "".join(f"\n- {line}." for line in table.unlearned)
    said += "".join(f"\n- {SIGN * (r.kind == DESCRIBED)} {r.sentence}".replace("-  ", "- ") for r in remarks([e]))
    return f"# {e.id}: {e.title}\n\n{banner}{body}\n\n{notes}\n{said and said + chr(10)}"


def _markdown_cell(table: Table, at: tuple[int, int]) -> str:
    if at is None:
        return ""
    cell, column, judged = table.cell(at), table.experiment.columns[at[1]], table.judged[at]
    if not cell.shown:
        printed = f" (reported {judged.printed.text})" if judged.printed else ""
        return state_text(cell) + printed
    text = cell.text or number(cell.mean, column)
    text = f"**{text}**" if cell.best else f"<u>{text}</u>" if cell.second else text
    text += f" \u00b1 {number(cell.std, column)}" if math.isfinite(cell.std) else ""
    text += f" ({runs_text(cell)})" if cell.n != cell.wanted and not cell.derived else ""
    return text + table.mark(at)
