"""What `import comity` brings: names that are imported when they are asked for, each the one that its module has."""

import subprocess
import sys

import pytest

import comity


def test_every_name_is_there_and_is_seen() -> None:
    assert set(comity.__all__) <= set(dir(comity))
    assert all(getattr(comity, name) is not None for name in comity.__all__)


def test_a_name_is_the_same_whatever_was_imported_before() -> None:
    """A module of the package that had the name of what the package exports would take its place."""
    code = (
        "import importlib, pkgutil, types, comity\n"
        "for module in pkgutil.iter_modules(comity.__path__, 'comity.'):\n"
        "    if module.name not in ('comity.__main__', 'comity.cli'):\n"
        "        importlib.import_module(module.name)\n"
        "print([name for name in comity.__all__ if isinstance(getattr(comity, name), types.ModuleType)])\n"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "['sync']\n"


def test_modules_are_attributes_and_what_is_not_there_is_an_error() -> None:
    assert comity.errors.Conflict is comity.Conflict
    with pytest.raises(AttributeError, match="module 'comity' has no attribute 'Entrie'"):
        comity.Entrie  # type: ignore[attr-defined]  # noqa: B018


def test_the_contract_brings_no_client() -> None:
    code = "import sys, comity.v1.state_pb2; print([name for name in sys.modules if name == 'comity.client'])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
