"""ARCHITECTURE.md names what there is, and all of it that a newcomer needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
PACKAGES = {path.name: path for path in ROOT.glob("packages/*/src/defer_*")}
UNNAMED = {"__about__", "__init__"}
FOLDERS = {
    "defer_django": {"management"},
    "defer_gae_handler": {"authenticators", "django"},
    "defer_iteration": {"management"},
    "defer_local": {"cloud"},
}
"""Folders whose modules are all of a kind."""


def section(package: str) -> str:
    found = re.search(rf"^## {package}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def modules(package: str) -> list[Path]:
    folder = PACKAGES[package]
    found = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return [path for path in found if path.stem not in UNNAMED and not {"migrations", "_paths"} & set(path.parts)]


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - {"defer_pytest"}))
def test_each_module_has_its_place(package: str) -> None:
    text = section(package)
    whole = FOLDERS.get(package, set())
    missing = [
        str(path)
        for path in modules(package)
        if not re.search(rf"[`/]{path.stem}\b", text) and not whole & set(path.parts)
    ]
    assert missing == []


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - {"defer_pytest"}))
def test_each_name_is_of_a_module(package: str) -> None:
    known = {path.name for path in modules(package)} | {"__init__.py"}
    named = {Path(name).name for name in re.findall(r"`([\w/]+\.py)`", section(package))}
    assert named - known == set()


def test_each_place_of_a_change_is_there() -> None:
    places = re.findall(r"`((defer_\w+)/[\w/.]+)`", section("Where do I change…"))
    assert len(places) >= 14
    missing = [place for place, package in places if not (PACKAGES[package].parent / place).exists()]
    assert missing == []
