"""One page per backbone, system and mixer, from its own docstring, settings and search space.

`python -m experiments.method_pages` writes docs/methods/*.md; edit the components, not the pages.
"""

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

from bench import registry, spaces
from bench.errors import BenchError
from bench.experiments import all_experiments
from bench.experiments.common import sections
from bench.sources import fields

FOLDER = Path(__file__).parents[1] / "docs" / "methods"
KINDS = {"models": ("Backbones and systems", "backbone"), "mixers": ("Mixing methods", "mixer")}


def page(kind: str, name: str) -> str:
    """A component's page."""
    path = Path(__file__).parents[1].joinpath("bench", kind, f"{name}.py")
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or name
    title, _, rest = doc.partition("\n")
    room = KINDS[kind][1]
    built = registry.constants(kind, name).get("DESCRIPTION")
    parts = [f"# {title.rstrip('.')}", f"`{name}`, version {registry.version(kind, name)}, `bench/{kind}/{name}.py`",
             f"**From the description** ([what that means](../concepts.md)): {built}." if built else "", _markdown(rest)]
    lines = [f"| `{room}.{s.name}` | {_code(s.default)} | {_cell(s.comment)} |" for s in fields(path)]
    if lines:
        parts += ["## Settings", "Change one with `--set`. Defaults of the class; what each data set really runs with is in "
                  "[hyperparameters](../hyperparameters.md).",
                  "\n".join(["| setting | default | meaning |", "|---|---|---|", *lines])]
    if kind == "models":
        parts += _sources(name)
    parts += _space(kind, name)
    used = [f"- `{e.id}`: {e.title}" for e in all_experiments().values() if any(getattr(c, room) == name for c in e.configs())]
    if used:
        parts += ["## Where it is used", "\n".join(used)]
    return "\n\n".join(p for p in parts if p) + "\n"


def _markdown(doc: str) -> str:
    """A docstring's text: paragraphs that are laid out in columns keep their layout, lists stand apart from what
    precedes them (else Markdown takes them for running text), and files of docs/ are links."""
    def laid_out(block: str) -> bool:
        return bool(re.search(r"\S {3,}\S", block)) or all(line.startswith("    ") for line in block.splitlines())

    return "\n\n".join(f"```text\n{dedent(b)}\n```" if laid_out(b) else _prose(b) for b in doc.strip("\n").split("\n\n") if b)


def _prose(block: str) -> str:
    lines: list[str] = []
    listed = False
    for line in block.splitlines():
        item = bool(re.match(r"- |\d+\. " if listed else r"- |1\. ", line))
        if lines and not line.startswith(" ") and item != listed:
            lines.append("")
        listed = item or listed and line.startswith(" ")
        lines.append(line)
    text = re.sub(r"\bdocs/(\w+)\.md", r"[\1](../\1.md)", "\n".join(lines))
    return re.sub(r"(?<![\w/`])((?:\w+/)*\w+\.py)\b(?!`)", r"`\1`", text)


def _sources(name: str) -> list[str]:
    found = [s["source"] for s in sections("", name) if isinstance(s, dict) and s.get("source")]
    return ["## Where its hyperparameters come from", "\n".join(f"- {s}." for s in found)] if found else []


def _space(kind: str, name: str) -> list[str]:
    try:
        found = spaces.declared(kind, name)
    except BenchError:
        return []
    rows = [
        f"| `{key}` | {_cell(_range(entry))} |" for key, entry in found.items() if isinstance(entry, dict)
    ]
    if not rows:
        return []
    return ["## What `bench tune` searches", f"Source: {found.get('source', 'not stated')}.",
            "\n".join(["| setting | range |", "|---|---|", *rows])]


def _range(entry: Mapping[str, Any]) -> str:
    """What a dimension of a search space may be, in words."""
    if "choices" in entry:
        return "one of " + ", ".join(map(str, entry["choices"]))
    if "factor" in entry:
        return f"the published value divided by {entry['factor']:g} to multiplied by it, on a logarithmic scale"
    kinds = [word for key, word in (("integer", "whole numbers"), ("log", "on a logarithmic scale")) if entry.get(key)]
    return ", ".join([f"{entry['low']:g} to {entry['high']:g}", *kinds])


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def index() -> str:
    """The list of all methods."""
    parts = ["# Methods", "One page each, made from the component's own docstring by `python -m experiments.method_pages`."]
    for kind, (title, _) in KINDS.items():
        lines = []
        for name in registry.names(kind):
            path = Path(__file__).parents[1].joinpath("bench", kind, f"{name}.py")
            first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or name).splitlines()[0]
            built = " From the description." if "DESCRIPTION" in registry.constants(kind, name) else ""
            lines.append(f"- [`{name}`]({kind}-{name}.md): {first}{built}")
        parts += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def pages() -> dict[str, str]:
    """File name -> text."""
    made = {f"{kind}-{name}.md": page(kind, name) for kind in KINDS for name in registry.names(kind)}
    return {"index.md": index(), **made}


def write(folder: Path) -> Iterable[Path]:
    """Write all pages; files of components that are gone are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    for old in folder.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
        yield folder / name


if __name__ == "__main__":
    for written in write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(written)
