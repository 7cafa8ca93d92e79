"""bench: a benchmark harness for multimodal sentiment analysis.

`import bench` gives what the command line calls (bench/api.py): bench.plan, bench.run, bench.tune, bench.report,
bench.watch, bench.results, bench.cell, bench.predict, bench.export, and bench.BenchError, which they raise.
"""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import cell, export, plan, predict, report, results, run, tune, watch
    from bench.errors import BenchError

_INSIDE = Path(__file__).parent / "experiments"  # where it was installed
EXPERIMENTS = _INSIDE if _INSIDE.is_dir() else Path(__file__).parents[1] / "experiments"  # a checkout: beside this folder
if EXPERIMENTS != _INSIDE:
    __path__.append(str(EXPERIMENTS.parent))  # bench.experiments, whichever other `experiments` a user has

__version__ = "0.2.0.dev0"
__all__ = ["BenchError", "cell", "export", "plan", "predict", "report", "results", "run", "tune", "watch"]


class _Callable(ModuleType):
    """A module that bears the name of a function of bench/api.py (bench/plan.py, bench/report/) and can be called as it."""

    @property
    def _function(self) -> Callable[..., Any]:
        return getattr(importlib.import_module("bench.api"), self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._function(*arguments, **named)


class _Package(ModuleType):
    """Finds the functions of bench/api.py when they are asked for. Python makes an imported submodule an attribute of its
    package, in the place of a function of its name: it is made callable."""

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'bench' has no attribute '{name}'")
        return getattr(importlib.import_module("bench.errors" if name == "BenchError" else "bench.api"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and type(value) is ModuleType:
            value.__class__ = _Callable
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
