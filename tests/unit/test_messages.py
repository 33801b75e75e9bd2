"""All that the pages say is translated, as proof that it can be."""

from __future__ import annotations

from gettext import GNUTranslations
from io import BytesIO
from pathlib import Path

import messages
import pytest
from django import contrib

FILES = messages.translations()


@pytest.fixture(params=FILES, ids=["/".join((path.parts[-5], path.parts[-3])) for path in FILES])
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_translations() -> None:
    assert "defer_django" in {path.parts[-5] for path in FILES}


def test_each_message_is_translated_and_nothing_else(path: Path) -> None:
    asked = {(message.context, message.id) for message in messages.said(messages.messages(path.parents[3]))}
    given = {
        (message.context, message.id): message.string
        for message in messages.said(messages.read(path))
        if not message.fuzzy
    }
    assert asked == given.keys(), "run `hatch run messages`, and translate what it names"
    assert [key for key, string in given.items() if not all([string] if isinstance(string, str) else string)] == []


@pytest.mark.parametrize("language", sorted({path.parts[-3] for path in FILES}))
def test_one_message_is_translated_in_one_way(language: str) -> None:
    """What Django or another app makes of a message may be what a page says: there is one for all of a site."""
    said: dict[object, set[str]] = {}
    for path in [path.with_suffix(".mo") for path in FILES if path.parts[-3] == language]:
        for key, string in entries(path.read_bytes()).items():
            said.setdefault(key, set()).add(string)
    for path in Path(contrib.__file__).parent.glob(f"*/locale/{language}/LC_MESSAGES/django.mo"):
        for key in (given := entries(path.read_bytes())).keys() & said.keys():
            said[key].add(given[key])
    assert {key: strings for key, strings in said.items() if len(strings) > 1} == {}, "give one a context (pgettext)"


def test_what_is_filled_in_is_the_same(path: Path) -> None:
    assert [(message.id, errors) for message, errors in messages.read(path).check()] == []


def test_what_django_reads_is_the_same(path: Path) -> None:
    written, read = messages.compiled(messages.read(path)), path.with_suffix(".mo").read_bytes()
    assert entries(read) == entries(written), "run `hatch run messages`"


def entries(compiled: bytes) -> dict[object, str]:
    """The messages of a compiled translation, without what it says of itself."""
    return {key: said for key, said in GNUTranslations(BytesIO(compiled))._catalog.items() if key}
