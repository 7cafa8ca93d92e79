"""A hook of the documentation's build: the pages of all methods stand in the navigation, under Methods, and cells of
tables break where a reader would break them."""

import re
from pathlib import Path

LONG = r"\S{16,}"  # paths and names that would push a table beyond its page: a telephone's, or, from WIDE on, any
WIDE = 20
NUMBERS = r"<td[^>]*>[\d.,+\u2212\u00b1%e \[\]-]+</td>"  # 0.925 ± 0.022, −0.021 [−0.042, −0.001]


def on_config(config):
    """Puts docs/methods/*.md where the navigation has methods/index.md."""
    folder = Path(config["docs_dir"]) / "methods"

    def named(prefix):
        return [{p.stem.removeprefix(prefix): f"methods/{p.name}"} for p in sorted(folder.glob(f"{prefix}*.md"))]

    for group in (v for part in config["nav"] for v in part.values() if isinstance(v, list)):
        for entry in group:
            if entry.get("Methods") == "methods/index.md":
                entry["Methods"] = ["methods/index.md", {"Backbones and systems": named("models-")}, {"Mixing": named("mixers-")}]
    return config


def on_page_content(html, **_):
    """Long names in a table may break behind / _ . and =, numbers with their spread never."""
    def cell(found):
        if re.fullmatch(NUMBERS, found[0]):
            return found[0].replace("<td", '<td class="number"', 1)
        return re.sub(r"(?<=>)[^<>]+(?=<)", lambda text: re.sub(LONG, lambda name: breakable(name[0]), text[0]), found[0])

    return re.sub(r"<td[^>]*>.*?</td>", cell, html, flags=re.S)


def breakable(name):
    place = "<wbr>" if len(name) >= WIDE else '<wbr class="narrow">'
    return re.sub(r"([/_.=])(?=\w)", rf"\1{place}", name)
