"""What can be named in a job: backbones and systems (models/), mixers, dataset formats, experiments.

A component is one Python file. Models and mixers carry a literal `VERSION = n` at module level, which is read from
the source without importing it: the read wing knows the versions that are part of a job's identity, yet never
imports torch. A model without latents before late fusion, which no mixer can act on, says `MIXABLE = False` likewise.
Adding a component is adding its file; nothing else is edited.
"""

import ast
import importlib
import pkgutil
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from bench.errors import BenchError

_PACKAGES = {"models": "bench.models", "mixers": "bench.mixers", "datasets": "bench.data.datasets"}
_ROOT = Path(__file__).parent.parent


def _folder(kind: str) -> Path:
    return _ROOT.joinpath(*_PACKAGES[kind].split("."))


@lru_cache
def _literals(path: Path) -> dict[str, object]:
    """Module-level constants `NAME = literal` of a source file, without running it."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


@lru_cache
def names(kind: str) -> tuple[str, ...]:
    """Sorted names of the components of a kind: the files that declare a VERSION."""
    files = (_folder(kind) / f"{m.name}.py" for m in pkgutil.iter_modules([str(_folder(kind))]))
    return tuple(sorted(f.stem for f in files if f.is_file() and "VERSION" in _literals(f)))


def _known(kind: str, name: str) -> None:
    if name not in names(kind):
        singular = kind.rstrip("s")
        raise BenchError(f"unknown {singular} '{name}'; known {kind}: {', '.join(names(kind))}")


def constants(kind: str, name: str) -> dict[str, object]:
    """The literal module-level constants of a component, read without importing it (VERSION and the like)."""
    _known(kind, name)
    return _literals(_folder(kind) / f"{name}.py")


def parameters(kind: str, name: str) -> dict[str, object]:
    """The literal defaults of a component's `Params`, read without importing it: {"rank": 3, ...}."""
    _known(kind, name)
    return _defaults(_folder(kind) / f"{name}.py")


@lru_cache
def _defaults(path: Path) -> dict[str, object]:
    classes = {n.name: n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.ClassDef)}

    def of(name: str) -> dict[str, object]:
        if name not in classes:
            return {}
        found: dict[str, object] = {}
        for base in classes[name].bases:
            found |= of(base.id) if isinstance(base, ast.Name) else {}
        for node in classes[name].body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                try:
                    found[node.target.id] = ast.literal_eval(node.value)
                except ValueError:
                    continue
        return found

    return of("Params")


def version(kind: str, name: str) -> int:
    """The component's VERSION, which is part of the identity of every job that uses it."""
    return int(constants(kind, name)["VERSION"])


def load(kind: str, name: str) -> ModuleType:
    """Import a component's module. Models define `Model` and `Params`, mixers `Mix` and `Params`, datasets `SPEC`."""
    _known(kind, name)
    return importlib.import_module(f"{_PACKAGES[kind]}.{name}")
