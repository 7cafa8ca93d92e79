"""What is said of printed rows that are not run here, and of those whose model was built from a description alone."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.matrix import Experiment, Row

UNRUN, DESCRIBED = "not run here", "from the description"
SIGN = "\u00a7"  # behind the name of a row that is "from the description", where no badge fits


@dataclass(frozen=True)
class Remark:
    """`kind`: UNRUN or DESCRIBED; `text` "": a row that is not run, and nobody has said why."""

    kind: str
    name: str  # of the rows, as printed
    text: str
    artefacts: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """"FMFN is not run here. ..."; "Multimodal Boosting is built from the description: ..."."""
        if self.kind == DESCRIBED:
            return f"{self.name} is built from the description: {self.text.rstrip('.')}."
        return f"{self.name} is not run here" + (f". {self.text}" if self.text else ": it is not implemented.")


def remarks(experiments: Iterable[Experiment]) -> list[Remark]:
    """Those of some artefacts, each once, in the order of their first row."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for e in experiments:
        runs = {r.key[:2] for r in e.rows if any(r.cells.values())}
        for row in e.rows:
            for kind, text in _of(row):
                name = _name(row, whole=kind == UNRUN and row.key[:2] in runs)
                found.setdefault((kind, name, text), []).append(e.id)
    return [Remark(*key, tuple(dict.fromkeys(ids))) for key, ids in found.items()]


def _of(row: Row) -> list[tuple[str, str]]:
    said = []
    if row.unrun or any(c is None for c in row.cells.values()):
        said.append((UNRUN, row.unrun))
    if row.described:
        said.append((DESCRIBED, row.described))
    return said


def _name(row: Row, whole: bool) -> str:
    """The system's name; with its variant where that is what is not run."""
    return " ".join(filter(None, row.key if whole else row.key[:2]))
