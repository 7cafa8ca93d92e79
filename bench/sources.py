"""The fields of a parameter class, read from its source without importing it: names, defaults, comments. Torch-free."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parent.parent
_USUAL = {  # what settings without a comment of their own mean wherever they occur
    r"encoder": "text encoder: a name in the model cache, or a folder",
    r"finetune": "train the text encoder too",
    r"finetune_audio": "train the audio encoder too",
    r"max_len": "tokens of a text",
    r"(\w+_)?heads(_\w+)?": "attention heads",
    r"(\w+_)?layers": "layers",
    r"(\w+_)?depth|levels": "layers",
    r"(\w+_)?mlp|feed_forward": "hidden width of the feed-forward part",
    r"(attn|attention)_dropout(_\w+)?": "dropout of attention weights",
    r"relu_dropout": "dropout inside the feed-forward part",
    r"res(idual)?_dropout": "dropout before a residual sum",
    r"embed_dropout": "dropout of a transformer's input",
    r"(\w+_)?dropout": "dropout rate",
    r"(\w+_)?(hidden|out|dim|width)|d|[zf]_(text|audio|vision)": "width",
    r"sample_at_test": "draw latents at test too; off: their mean",
    r"attend_padding": "the text encoder attends to padding",
    r"lambda_\w+": "weight of a loss",
}
_OF_WHAT = re.compile(r"(of|in|between|behind|before|after|inside|while) ")  # how a comment begins that only narrows a meaning


class Field(NamedTuple):
    """A dataclass field: its default as written (a constant of its file by its value), and the comment beside it, which
    what the name means everywhere stands in for, or before ("of the head" after "dropout rate")."""

    name: str
    default: str
    comment: str


@lru_cache
def fields(path: Path, cls: str = "Params") -> tuple[Field, ...]:
    """The fields of a class; those of its bases first, which may stand in other files of this harness. A class that is
    another one's name (`Params = bottleneck.Params`) has that one's. Empty where there is no such class."""
    found: dict[str, Field] = {}
    for field in _of(path, cls):
        found[field.name] = field  # a field that is given anew keeps its place
    return tuple(found.values())


@lru_cache
def _constants(path: Path) -> dict[str, str]:
    """Names that a file gives a plain value, with the value as written."""
    return {
        t.id: ast.unparse(n.value) for n in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant) for t in n.targets if isinstance(t, ast.Name)
    }


def _of(path: Path, cls: str) -> Iterator[Field]:
    source = path.read_text(encoding="utf-8")
    body = ast.parse(source).body
    comments = {
        t.start[0]: t.string.lstrip("# ").strip()
        for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT
    }
    imported = {a.asname or a.name: (n.module or "", a.name) for n in body if isinstance(n, ast.ImportFrom) for a in n.names}
    constants = _constants(path)

    def value(default: ast.expr | None) -> str:
        """A default as written; the name of a constant as its value."""
        written = ast.unparse(default) if default else ""
        if written in imported:
            module, name = imported[written]
            file = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
            return _constants(file).get(name, written) if file.is_file() else written
        return constants.get(written, written)

    def other(node: ast.expr) -> Iterator[Field]:
        """The fields of the class that an expression names: Base, or module.Base."""
        if isinstance(node, ast.Name) and node.id in imported:
            module, name = imported[node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            module, name = ".".join(imported[node.value.id]), node.attr
        else:
            if isinstance(node, ast.Name):
                yield from _of(path, node.id)
            return
        file = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
        if file.is_file():
            yield from _of(file, name)

    for node in body:
        if isinstance(node, ast.Assign) and [t.id for t in node.targets if isinstance(t, ast.Name)] == [cls]:
            yield from other(node.value)
        if isinstance(node, ast.ClassDef) and node.name == cls:
            for base in node.bases:
                yield from other(base)
            for f in node.body:
                if isinstance(f, ast.AnnAssign) and not ast.unparse(f.annotation).startswith("ClassVar"):
                    default, name = value(f.value), ast.unparse(f.target)
                    usual = next((t for p, t in _USUAL.items() if re.fullmatch(p, name)), "")
                    said = comments.get(f.end_lineno or 0, "") or usual
                    said = f"{usual} {said}" if usual and _OF_WHAT.match(said) else said
                    yield Field(name, "{}" if "default_factory=dict" in default else default, said)
