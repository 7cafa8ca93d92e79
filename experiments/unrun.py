"""What the tables say of rows without runs, and of rows whose model was built from a description: not_run.toml, and the
model files' DESCRIPTION."""

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench import registry
from bench.matrix import Experiment, Row

FILE = Path(__file__).parent / "not_run.toml"


@dataclass(frozen=True)
class Reason:
    """Why the rows of some labels are not run. `variant` "": all of them."""

    name: str
    rows: tuple[str, ...]
    why: str
    variant: str = ""

    def covers(self, row: Row) -> bool:
        return (row.method or row.backbone) in self.rows and self.variant in ("", row.variant)


@lru_cache
def reasons() -> tuple[Reason, ...]:
    """All of not_run.toml."""
    entries: Mapping[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return tuple(Reason(n, tuple(e.get("row", (n,))), e["why"], e.get("variant", "")) for n, e in entries.items())


def described(row: Row) -> str:
    """What the models of a row were built from, where that was a description alone; "" for all others."""
    known = registry.names("models")
    models = dict.fromkeys(c.backbone for c in row.cells.values() if c is not None and c.backbone in known)
    return "; ".join(dict.fromkeys(filter(None, (str(registry.constants("models", m).get("DESCRIPTION", "")) for m in models))))


def explained(e: Experiment) -> Experiment:
    """The experiment with `unrun` and `described` of its rows filled in."""
    def row(r: Row) -> Row:
        empty = not r.cells or any(c is None for c in r.cells.values())
        why = next((x.why for x in reasons() if x.covers(r)), "") if empty else ""
        return replace(r, unrun=r.unrun or why, described=r.described or described(r))

    return replace(e, rows=tuple(map(row, e.rows)))
