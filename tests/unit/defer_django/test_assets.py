"""What the pages of the admin share: style, script, the button that pauses them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from hatchling.builders.wheel import WheelBuilder

import defer_django

SOURCES = Path(__file__).parents[3] / "packages/defer-django"
PACKAGE = Path(defer_django.__file__).parent
DATA = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".css", ".js", ".html", ".mo"))


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
    assert finders.find(f"defer_django/{name}") == str(PACKAGE / "static/defer_django" / name)


def test_the_button_is_hidden_where_no_script_runs() -> None:
    assert ' hidden data-on="Live" data-off="Paused"' in render_to_string("admin/defer_django/live_button.html")


@pytest.mark.parametrize("path", [path for path in DATA if path.suffix == ".html"], ids=lambda path: path.name)
def test_nothing_in_a_template_is_forbidden_by_a_strict_policy(path: Path) -> None:
    parser = Inline()
    parser.feed(path.read_text())
    assert parser.found == []


def test_the_wheel_has_them(tmp_path: Path) -> None:
    wheel = next(WheelBuilder(str(SOURCES)).build(directory=str(tmp_path), versions=["standard"]))
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert DATA
    assert {f"defer_django/{path.relative_to(PACKAGE)}" for path in DATA} <= names
