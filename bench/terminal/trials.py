"""What `bench tune` prints: per cell the trials, what was chosen and what tuning gained on validation."""

from collections.abc import Sequence

from bench import estimate
from bench.matrix import Config, Job
from bench.plural import named
from bench.settings import difference, short_name
from bench.terminal.console import console, table
from bench.trails import PUBLISHED, Trail, unequal


def expected(jobs: Sequence[Job]) -> dict[str, float]:
    """Config id -> seconds that a trial is expected to take on a CPU core."""
    return estimate.seconds(jobs, {})


def print_trails(trails: Sequence[Trail], beside: bool = False) -> None:
    """A line per cell. The values are of the validation split; test values stand in the report, at the chosen setting.
    `beside`: the cells are not the artefact's own (--set), so that --suite tuned does not look for their searches."""
    columns = ("trials", "epochs", "published", "best")
    lines = table("cell", *columns, "at", "settings chosen", right=columns)
    first: dict[str, Config] = {}
    for t in trails:
        c = t.config
        cell = f"{c.dataset} {c.backbone}+{c.mixer}"
        if changed := difference(c, first.setdefault(cell, c)):  # two rows of one method
            cell += f" ({short_name(changed)})"
        if t.failed:
            lines.add_row(cell, str(len(t.trials)), str(t.epochs), "failed", "failed", "", "every trial failed; see the jobs' log.txt")
            continue
        best, published = t.best(), t.trials[PUBLISHED].value
        lines.add_row(
            cell, str(len(t.trials)), str(t.epochs),
            "failed" if published is None else f"{published:.4f}", f"{best.value:.4f}", f"trial {best.number}",
            " ".join(f"{k}={v}" for k, v in best.settings.items()) or "as published",
        )
    out = console()
    out.print(lines)
    if trails:
        out.print(f"validation {trails[0].objective}, mean over tuning {named('seed', trails[0].seeds)}")
    if line := unequal(trails):
        out.print(line)
    if beside:
        out.print("searched beside the defaults (--set): --suite tuned has the defaults' searches alone; bench run --set runs what was chosen")
    elif trails and all(t.config.dataset.startswith("synthetic-") for t in trails):
        out.print("searched on generated data: bench run ARTEFACT --report shows it; --suite tuned takes searches of your files (--suite real --data DIR)")
    else:
        out.print("next: bench run ARTEFACT --suite tuned, with the same --data and --results")
