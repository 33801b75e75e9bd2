"""What the pages of the admin are made of, beside their modules: style, script, templates, translations."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from hatchling.builders.wheel import WheelBuilder

SOURCES = Path(__file__).parents[2] / "packages"
PACKAGES = {name: SOURCES / name / "src" / name.replace("-", "_") for name in ("defer-django", "defer-iteration")}
TEMPLATES = [path for package in PACKAGES.values() for path in sorted(package.rglob("templates/**/*.html"))]


class Inline(HTMLParser):
    """Collects what a strict Content-Security-Policy forbids in a template."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        forbidden = tag == "style" or (tag == "script" and "src" not in names)
        self.found += [tag] if forbidden else []
        self.found += [name for name in names if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("name", ["pages.css", "live.js"])
def test_the_project_serves_them(name: str) -> None:
    assert finders.find(f"defer_django/{name}") == str(PACKAGES["defer-django"] / "static/defer_django" / name)


def test_the_button_is_hidden_where_no_script_runs() -> None:
    assert ' hidden data-on="Live" data-off="Paused"' in render_to_string("admin/defer_django/live_button.html")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_nothing_in_a_template_is_forbidden_by_a_strict_policy(path: Path) -> None:
    parser = Inline()
    parser.feed(path.read_text())
    assert parser.found == []


@pytest.mark.parametrize("name", PACKAGES)
def test_the_wheel_has_them(name: str, tmp_path: Path) -> None:
    package = PACKAGES[name]
    data = {path for path in package.rglob("*") if path.suffix in (".css", ".js", ".html", ".mo")}
    wheel = next(WheelBuilder(str(SOURCES / name)).build(directory=str(tmp_path), versions=["standard"]))
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {path.suffix for path in data} >= {".html", ".mo"}
    assert {f"{package.name}/{path.relative_to(package)}" for path in data} <= names
