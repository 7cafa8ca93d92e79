"""Components from outside of this tree: a folder named by --plugins or $BENCH_PLUGINS, or an installed package.

A plug-in folder is laid out like this tree, every part of it optional:

    models/<name>.py  mixers/<name>.py  datasets/<name>.py  experiments/<name>.py
    hyperparameters/<backbone>.toml     spaces/models/<name>.toml  spaces/mixers/<name>.toml
    reported/<paper>.csv                claims/<paper>.toml

An installed package registers such a folder, its own, by an entry point of the group `bench.plugins`:

    [options.entry_points]
    bench.plugins =
        mine = my_package

or single modules by the groups `bench.models`, `bench.mixers`, `bench.datasets` and `bench.experiments`, whose entry
points carry the component's name. What is broken in one plug-in is a line in `problems` and stops nothing else; a name
that this tree has already is kept, and the plug-in's is refused.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from bench.errors import BenchError

VARIABLE = "BENCH_PLUGINS"  # folders, separated as in $PATH; worker processes inherit it
GROUP = "bench.plugins"
KINDS = ("models", "mixers", "datasets", "experiments")
_problems: dict[str, None] = {}


def use(folder: str | Path) -> None:
    """Add a folder of plug-ins to this process and those that it starts. Raises BenchError where there is none."""
    path = Path(folder).absolute()
    if not path.is_dir():
        raise BenchError(f"--plugins {folder}: no such folder")
    before = os.environ.get(VARIABLE, "")
    if str(path) not in before.split(os.pathsep):
        os.environ[VARIABLE] = os.pathsep.join(filter(None, (before, str(path))))
    forget()


def forget() -> None:
    """Look again: the folders have changed."""
    folders.cache_clear()
    modules.cache_clear()
    _problems.clear()
    from bench import registry

    registry.forget()


def problem(line: str) -> None:
    """Note what is wrong with a plug-in, in one line."""
    _problems[line.splitlines()[0]] = None


def problems() -> list[str]:
    """What was found to be wrong so far."""
    return list(_problems)


@lru_cache
def folders() -> tuple[Path, ...]:
    """Folders of plug-ins, those of --plugins first."""
    found: dict[Path, None] = {}
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        if Path(name).is_dir():
            found[Path(name).absolute()] = None
        else:
            problem(f"${VARIABLE}: {name}: no such folder")
    for point in metadata.entry_points(group=GROUP):
        origin = _origin(point.value.partition(":")[0], f"plug-in '{point.name}'")
        if origin is not None:
            found[origin.parent] = None
    return tuple(found)


@lru_cache
def modules(kind: str) -> dict[str, tuple[Path, str]]:
    """name -> (source file, name to import it by) of plug-in components of a kind. Nothing is imported."""
    found: dict[str, tuple[Path, str]] = {}
    for folder in folders():
        for path in sorted((folder / kind).glob("*.py")):
            if path.stem.startswith("_"):
                continue
            if path.stem in found:
                problem(f"{path}: {found[path.stem][0]} has that name already")
                continue
            found[path.stem] = (path, "")
    for point in metadata.entry_points(group=f"bench.{kind}"):
        origin = _origin(point.value.partition(":")[0], f"plug-in {kind.rstrip('s')} '{point.name}'")
        if origin is not None and point.name not in found:
            found[point.name] = (origin, point.value.partition(":")[0])
    return found


def files(part: str, ending: str) -> Iterator[Path]:
    """Files of a part of all plug-in folders: files("claims", "toml")."""
    for folder in folders():
        yield from sorted((folder / part).glob(f"*.{ending}"))


def load(kind: str, name: str) -> ModuleType:
    """Import a plug-in component. Raises BenchError, in one line, where its code cannot be run."""
    path, module = modules(kind)[name]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is no part of `--json`
            return importlib.import_module(module) if module else _from_file(kind, path)
    except BenchError:
        raise
    except (Exception, SystemExit) as e:  # noqa: BLE001 - whatever somebody else's module raises, or that it exits
        first = str(e).splitlines()[0] if str(e) else ""
        hint = "; this harness's are bench.experiments" if isinstance(e, ImportError) and (e.name or "").partition(".")[0] == "experiments" else ""
        raise BenchError(f"plug-in {path}: {type(e).__name__}: {first}{hint}") from e


def _from_file(kind: str, path: Path) -> ModuleType:
    name = f"bench_plugin_{kind}_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BenchError(f"plug-in {path}: not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _origin(module: str, what: str) -> Path | None:
    """Source file of a module, found without running it (its parents are imported)."""
    try:
        spec = importlib.util.find_spec(module)
    except (Exception, SystemExit) as e:  # noqa: BLE001 - a parent package of somebody else's may raise anything
        problem(f"{what}: {module} cannot be found ({type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''})")
        return None
    if spec is None or spec.origin is None:
        problem(f"{what}: {module} has no source file")
        return None
    return Path(spec.origin)
