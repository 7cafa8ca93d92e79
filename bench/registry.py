"""What can be named in a job: backbones and systems (models/), mixers, dataset formats, experiments.

A component is one Python file. Models and mixers carry a literal `VERSION = n` at module level, which is read from
the source without importing it: the read wing knows the versions that are part of a job's identity, yet never
imports torch. A model without latents before late fusion, which no mixer can act on, says `MIXABLE = False` likewise;
one that was built from a description alone says of which in `DESCRIPTION`. `BRIEF` holds parameters under which the
same code runs in seconds (fewer epochs of a preparation, smaller widths): `bench check` and the tests use them.
For `bench check` too: `IDLE`, parts of the names of parameters that stand still under the defaults -> why, and `SAMPLES`,
whether predictions are drawn, in evaluation too.
Adding a component is adding its file, here or in a plug-in (plugins.py); nothing else is edited.
"""

import ast
import difflib
import importlib
import pkgutil
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from bench import plugins, sources
from bench.errors import BenchError

_PACKAGES = {"models": "bench.models", "mixers": "bench.mixers", "datasets": "bench.data.datasets"}
_ROOT = Path(__file__).parent.parent
_ADDED: dict[tuple[str, str], ModuleType] = {}  # components without a file: a data set that was inferred (data/own.py)


def add(kind: str, name: str, module: ModuleType) -> None:
    """Make a component known that has no file. Raises BenchError where its name is taken."""
    if name in _filed(kind):
        raise BenchError(f"'{name}' is the name of a {kind.rstrip('s')} that is here already; choose another")
    _ADDED[kind, name] = module


def _folder(kind: str) -> Path:
    return _ROOT.joinpath(*_PACKAGES[kind].split("."))


@lru_cache
def _own(kind: str) -> tuple[str, ...]:
    return tuple(m.name for m in pkgutil.iter_modules([str(_folder(kind))]))


def source(kind: str, name: str) -> Path:
    """The file of a component. Raises BenchError for an unknown one."""
    _known(kind, name)
    return _path(kind, name)


def _path(kind: str, name: str) -> Path:
    return _folder(kind) / f"{name}.py" if name in _own(kind) else plugins.modules(kind)[name][0]


def forget() -> None:
    """Look again: plug-ins were added."""
    for cached in (_literals, _filed, _defaults):
        cached.cache_clear()


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


def names(kind: str) -> tuple[str, ...]:
    """Sorted names of the components of a kind: the files that declare a VERSION, and what was added. A plug-in that
    cannot be read, or whose name is taken, is left out and noted (plugins.problems)."""
    added = [n for k, n in _ADDED if k == kind]
    return tuple(sorted({*_filed(kind), *added})) if added else _filed(kind)


@lru_cache
def _filed(kind: str) -> tuple[str, ...]:
    own = [n for n in _own(kind) if (_folder(kind) / f"{n}.py").is_file() and "VERSION" in _literals(_folder(kind) / f"{n}.py")]
    more = []
    for name, (path, _) in plugins.modules(kind).items():
        if name in _own(kind):
            plugins.problem(f"{path}: this harness has {kind.rstrip('s')} '{name}' already; rename the file")
            continue
        try:
            if "VERSION" in _literals(path):
                more.append(name)
            else:
                plugins.problem(f"{path}: no VERSION = 1 at module level; a component declares one")
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as e:
            plugins.problem(f"{path}: {type(e).__name__}: {e}")
    return tuple(sorted([*own, *more]))


def _known(kind: str, name: str) -> None:
    if name not in names(kind):
        singular = kind.rstrip("s")
        near = difflib.get_close_matches(name, names(kind), 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise BenchError(f"unknown {singular} '{name}'{hint}; known {kind}: {', '.join(names(kind))}")


def constants(kind: str, name: str) -> dict[str, object]:
    """The literal module-level constants of a component, read without importing it (VERSION and the like)."""
    _known(kind, name)
    return _literals(_path(kind, name))


def parameters(kind: str, name: str) -> dict[str, object]:
    """The literal defaults of a component's `Params`, read without importing it: {"rank": 3, ...}."""
    _known(kind, name)
    return _defaults(_path(kind, name))


@lru_cache
def _defaults(path: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for field in sources.fields(path):
        try:
            found[field.name] = ast.literal_eval(field.default)
        except (ValueError, SyntaxError):
            continue
    return found


def version(kind: str, name: str) -> int:
    """The component's VERSION, which is part of the identity of every job that uses it."""
    if (kind, name) in _ADDED:
        return int(_ADDED[kind, name].VERSION)
    return int(constants(kind, name)["VERSION"])


def load(kind: str, name: str) -> ModuleType:
    """Import a component's module. Models define `Model` and `Params`, mixers `Mix` and `Params`, datasets `SPEC`."""
    _known(kind, name)
    if (kind, name) in _ADDED:
        return _ADDED[kind, name]
    return importlib.import_module(f"{_PACKAGES[kind]}.{name}") if name in _own(kind) else plugins.load(kind, name)
