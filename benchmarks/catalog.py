"""Finds the benchmarks: the modules of `benchmarks.workloads`."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Coroutine
from typing import NamedTuple

from benchmarks import workloads
from benchmarks.options import Options
from benchmarks.report import Report


class Benchmark(NamedTuple):
    name: str
    about: str  # what it measures
    run: Callable[[Options], Coroutine[None, None, Report]]


def names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(workloads.__path__)]


def load(name: str) -> Benchmark:
    module = importlib.import_module(f"{workloads.__name__}.{name}")
    return Benchmark(name, inspect.getdoc(module) or "", module.run)
