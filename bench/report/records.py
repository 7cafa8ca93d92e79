"""What figures hand to the page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One drawn figure of an artefact. `svg` is inlined; `csv` and `pdf` are file names in the report folder."""

    id: str  # anchor on the page: "msmix-f6"
    title: str
    svg: str
    caption: str = ""
    csv: str = ""  # the points behind it
    note: str = ""  # what is missing or was chosen by us
    pdf: str = ""  # for the LaTeX master document
