"""Reads the printed tables out of the papers' extracted text, knowing nothing of the CSV files checked against them.

Tables are lines of cells parted by tabs or pipes. A line is a row if any of its cells, past the label columns, starts
with a digit once markup is gone; so headings ("Acc2", "F1") and names drop out. What is left out by hand is listed in
LABEL_COLUMNS and MANGLED, and nowhere else.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TEXTS = Path(__file__).parents[1].parent / "shared" / "papers"
FILES = {paper: f"{i:03d}_*.txt" for i, paper in enumerate(("msmix", "powmix", "slad", "samlml", "cpsl"))}
LABEL_COLUMNS = {  # leading columns that hold labels, ticks, rates or ids; 1 elsewhere
    "msmix-t4": 4, "powmix-t1": 4, "powmix-t3": 4, "slad-t3": 4, "samlml-t5": 2, "samlml-t6": 2, "samlml-t11": 2,
    "samlml-t13": 2, "samlml-t14": 2, "cpsl-t2": 2,
}
# The text of slad-t3 runs six mangled arrows into the number behind them: the mangled piece, and what replaces it.
MANGLED = {r"\10a4": " ", r"\1012": " ", r"\1014": " ", r"(\12.53": "(2.53", r"(\frac{1}{5}.13": "(5.13"}
DATASETS = {"mosi": "mosi", "mosei": "mosei", "sims": "sims", "ur-funny": "ur-funny", "mustard": "mustard",
            "musard": "mustard"}


@dataclass(frozen=True)
class Line:
    """One printed row: its label cells, its other cells, and the nearest and the topmost heading above those."""

    labels: tuple[str, ...]
    cells: tuple[str, ...]
    heading: tuple[str, ...]
    top: tuple[str, ...]

    @property
    def numbers(self) -> list[str]:
        """Every number, left to right: means, stds, both halves of a pair, relative changes (without their arrow)."""
        return [n for cell in self.cells for n in _numbers(cell)]

    @property
    def columns(self) -> list[str]:
        """The squashed heading over each number but the stds: "acc2" twice over a pair "76.9/78.2"."""
        names = []
        for cell, head in zip(self.cells, self.heading, strict=True):
            n, heads = len(_numbers(cell.partition("\\pm")[0])), head.split(" / ")
            names += [squash(h) for h in (heads if len(heads) > 1 else heads * n)]
        return names


@dataclass(frozen=True)
class Table:
    lines: tuple[Line, ...]
    datasets: tuple[str, ...]  # in the order of the headings, or of the caption where no heading names one


def _numbers(cell: str) -> list[str]:
    plain = re.sub(r"</?[bu]>|\*\*|\$", "", cell).strip()
    return re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-\d+)?", plain) if re.match(r"\d", plain) else []


def squash(label: str) -> str:
    """Letters and digits only, without citations, marks, markup, LaTeX commands and "(ours)"."""
    label = re.sub(r"\([^()]*\d{4}\w?\)|\[[^]]*\]|<[^>]*>|\\[a-z]+|\^[abc]|\(ours?\)", "", label)
    return re.sub(r"[^a-z0-9]", "", label.replace("MuIT", "MulT").lower().translate(str.maketrans("₂₃₅₇", "2357")))


@cache
def table(artefact: str) -> Table:
    """The printed table of an artefact id such as "samlml-t5"."""
    paper, number = artefact.split("-t")
    (path,) = TEXTS.glob(FILES[paper])
    text = path.read_text(encoding="utf-8").splitlines()
    (start,) = [i for i, line in enumerate(text) if re.match(rf"table {number}:", line, re.IGNORECASE)]
    skip, lines, headings = LABEL_COLUMNS.get(artefact, 1), [], []
    for line in text[start + 1:]:
        if "\t" not in line and not line.startswith("|"):
            if lines and line.strip():
                break  # prose, or the next caption
            continue
        for arrow, repair in MANGLED.items() if artefact == "slad-t3" else ():
            line = line.replace(arrow, repair)
        cells = tuple(line.split("\t") if "\t" in line else line.strip("|").split("|"))
        if any(_numbers(c) for c in cells[skip:]):
            lines.append(Line(cells[:skip], cells[skip:], headings[-1][skip:], headings[0][skip:]))
        elif not line.startswith("|--"):
            headings.append(cells)
    named = [re.findall("|".join(DATASETS), source.lower()) for source in (str(headings), text[start])]
    return Table(tuple(lines), tuple(dict.fromkeys(DATASETS[d] for d in named[0] or named[1])))
