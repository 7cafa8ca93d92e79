"""The ledger of claims: experiments/claims/<paper>.toml, read and checked.

    [[claim]]
    id = "powmix-c01"
    where = "Sec. 6.1, Table 2"
    says = "PowMix improves every metric of every reproduced model on every dataset."
    form = "stated"                  # "stated", "reading" (stricter than the paper says) or "cross-check"
    kind = "better"                  # the predicate; or several in [[claim.part]] tables
    of = { artefact = "powmix-t2" }  # which cells it is about
    row = { method = "PowMix" }      # which rows are compared ...
    against = { method = "plain" }   # ... with which; without it: with all other rows of the block

Selectors are those of bench.analysis.cells.matches. Predicates are listed in KINDS.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bench import EXPERIMENTS, plugins
from bench.errors import BenchError

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

FOLDER = EXPERIMENTS / "claims"
PAPERS = ("msmix", "powmix", "slad", "samlml", "cpsl")

KINDS = {
    "best": "each row beats all the others of its block (an argmax, a peak, first place)",
    "worst": "each row is beaten by all the others of its block",
    "beats": "each row beats at least one other of its block",
    "beaten": "each row is beaten by at least one other of its block",
    "better": "each row beats each other row, counted pair by pair",
    "rank": "each row is among the `at_most` best of its block; ties do not count against it",
    "difference": "row minus other, counted as a gain (positive is better), is the `expect`ed number",
    "change": "100 (row - other) / other is the `expect`ed number or lies in the `expect`ed range",
    "printed_change": "the printed `<metric>_change` of the row follows from row and other, within rounding",
    "equal": "row and other print the same number, at the coarser rounding",
    "comparable": "row and other differ by at most `margin`",
    "monotone": "row after row in the given `order`, each is better, or worse (`trend`), than the one before",
    "value": "the cell is the `expect`ed number or lies in the `expect`ed range",
    "contrast": "a sum of weighted cells (`terms`) is the `expect`ed number or lies in the `expect`ed range",
    "significant": "row beats the best other by a difference with p < 0.05",
    "steadier": "the row's spread over seeds is at most that of each other",
    "untestable": "no number can decide it; `reason` says why",
}
FORMS = ("stated", "reading", "cross-check")
ON = ("both", "reported", "runs")  # which numbers a part is evaluated on


@dataclass(frozen=True)
class Part:
    """One predicate over cells."""

    kind: str
    of: Mapping[str, Any] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)
    against: Mapping[str, Any] = field(default_factory=dict)  # empty: every other row of the block
    by: tuple[str, ...] = ("artefact", "dataset", "backbone")  # rows that agree in these are compared
    metrics: tuple[str, ...] = ()  # empty: those that `expect` names, else every metric that both rows have
    expect: Any = None  # a number, a [low, high] range, or a table of them by metric
    tolerance: Any = None  # around an expected number; else half a unit of its last digit
    margin: Any = 0.0  # by how much a row must be better (a number or a table by metric); "comparable": at most
    ties: bool = False  # equal is good enough
    at_most: int = 2
    order: tuple[Any, ...] = ()  # selectors or variants, first to last
    trend: str = "better"
    terms: tuple[Mapping[str, Any], ...] = ()  # {weight, <selector>, pick = "best"} or {weight, const}
    each: tuple[str, ...] = ()  # a contrast is taken once for every value of these columns
    on: str = "both"
    reason: str = ""


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper as predicates over table cells."""

    id: str
    where: str
    says: str
    parts: tuple[Part, ...]
    form: str = "stated"
    need: Any = "all"  # of the comparisons: "all", "majority", "any", an exact count, or {share, within}
    our_margin: bool = False  # the threshold that decides it is ours, not the paper's
    note: str = ""

    @property
    def paper(self) -> str:
        return self.id.partition("-")[0]


_PART = {f.name for f in fields(Part)}
_CLAIM = {f.name for f in fields(Claim)} - {"parts"}


def load(papers: Iterable[str] = PAPERS, folder: Path = FOLDER) -> list[Claim]:
    """The claims of some papers, in the order of their files. Raises BenchError for a file that is not a ledger."""
    return [claim for paper in papers for claim in read(_file(paper, folder))]


def known(paper: str) -> bool:
    """Whether there are claims of a paper, here or in a plug-in; a plug-in's that cannot be read are noted, and are not."""
    path = _file(paper)
    if not path.exists():
        return False
    if path.parent == FOLDER:
        return True
    try:
        read(path)
    except BenchError as e:
        plugins.problem(f"{path}: {e}")
        return False
    return True


def _file(paper: str, folder: Path = FOLDER) -> Path:
    own = folder / f"{paper}.toml"
    return own if own.exists() else next((p for p in plugins.files("claims", "toml") if p.stem == paper), own)


def read(path: Path) -> list[Claim]:
    """The claims of one ledger file. Raises BenchError where a claim is malformed or an id occurs twice."""
    claims = [parse(entry, path.name) for entry in document(path).get("claim", [])]
    ids = [claim.id for claim in claims]
    for twice in {i for i in ids if ids.count(i) > 1}:
        raise BenchError(f"{path.name}: claim id '{twice}' occurs twice")
    return claims


def document(path: Path) -> dict[str, Any]:
    """A ledger file as plain tables. Raises BenchError where there is none or it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BenchError(f"no ledger of claims at {path}") from None
    except tomllib.TOMLDecodeError as error:
        raise BenchError(f"{path.name} is not valid TOML: {error}") from None


def parse(entry: Mapping[str, Any], source: str = "claim") -> Claim:
    """One [[claim]] table. Raises BenchError in one line that names the claim and the field."""
    name = f"{source}: claim '{entry.get('id', '?')}'"
    own = {k: v for k, v in entry.items() if k in _CLAIM}
    inline = {k: v for k, v in entry.items() if k not in _CLAIM and k != "part"}
    tables = [*([inline] if inline else []), *entry.get("part", [])]
    for required in ("id", "where", "says"):
        if required not in own:
            raise BenchError(f"{name} has no '{required}'")
    if own.get("form", "stated") not in FORMS:
        raise BenchError(f"{name}: form '{own['form']}' is none of {', '.join(FORMS)}")
    if not tables:
        raise BenchError(f"{name} has no predicate")
    return Claim(parts=tuple(_part(table, name) for table in tables), **own)


def _part(table: Mapping[str, Any], name: str) -> Part:
    if unknown := sorted(set(table) - _PART):
        raise BenchError(f"{name}: unknown field '{unknown[0]}'")
    if table.get("kind") not in KINDS:
        raise BenchError(f"{name}: kind '{table.get('kind')}' is none of {', '.join(KINDS)}")
    if table.get("on", "both") not in ON:
        raise BenchError(f"{name}: on '{table['on']}' is none of {', '.join(ON)}")
    if table["kind"] in ("difference", "change", "value", "contrast") and "expect" not in table:
        raise BenchError(f"{name}: kind '{table['kind']}' needs 'expect'")
    if table["kind"] == "untestable" and not table.get("reason"):
        raise BenchError(f"{name}: kind 'untestable' needs a 'reason'")
    return Part(**{k: tuple(v) if isinstance(v, list) and k not in ("expect",) else v for k, v in table.items()})
