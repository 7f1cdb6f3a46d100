"""Imports run downwards only, as docs/architecture.md draws them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "dockerd_py"

BASE = {"errors", "version", "subprocesses", "ids", "confined", "flags", "config", "wire", "wirelink", "pids"}
ALLOWED = {
    "monitor": {"monitor", "wire", "pids"},
    "units": {"units"} | BASE,
    "store": {"store"} | BASE,
    "runtime": {"runtime", "monitor"} | BASE,
    "engine": {"engine", "store", "units", "runtime", "nat", "monitor"} | BASE,
    "api": {"api", "engine"} | BASE,
    "dbus": {"dbus", "engine"} | BASE,
    "cli": {"cli", "flags", "version"},
    "daemon": {"daemon", "api", "dbus", "engine", "units"} | BASE,
    "nat": {"nat"} | BASE,
}


def imported(path: Path) -> set[str]:
    """The parts of our own package that a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        names |= {name.split(".")[1] for name in modules if name.startswith("dockerd_py.")}
    return names


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_a_folder_imports_only_what_is_below_it(folder: str) -> None:
    for path in (PACKAGE / folder).rglob("*.py"):
        strangers = imported(path) - ALLOWED[folder]
        assert not strangers, f"{path.relative_to(PACKAGE)} imports {strangers}"


def test_the_name_service_imports_nothing_heavy() -> None:
    for path in (PACKAGE / "nat" / "dns").rglob("*.py"):
        text = path.read_text()
        strangers = imported(path) - {"wire", "nat"}
        assert not strangers, f"{path.relative_to(PACKAGE)} imports {strangers}"
        assert "dockerd_py.nat." not in text.replace("dockerd_py.nat.dns", "")


def test_every_folder_has_its_place() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.rglob("*.py"))}
    assert folders <= set(ALLOWED)


@pytest.mark.parametrize("part", ["monitor", "nat/dns", "wire.py"])
def test_the_monitor_and_the_name_service_need_only_the_standard_library(part: str) -> None:
    place = PACKAGE / part
    for path in place.rglob("*.py") if place.is_dir() else [place]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                top = module.split(".")[0]
                assert top == "dockerd_py" or top in STDLIB, f"{path.name} imports {module}"


STDLIB = set(__import__("sys").stdlib_module_names)
