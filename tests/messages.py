"""What the packages say to people, and its translations: `hatch run messages` collects one and compiles the other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

PACKAGES = sorted(Path(__file__).parents[1].glob("packages/*/src/*/"))
HEADER = """msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Language: {}\\n"
"Plural-Forms: {}\\n"

"""
"""All that a file says of itself: no dates, so that it changes with its messages alone."""
NO_DATE = datetime(2000, 1, 1, tzinfo=UTC)
KEYWORDS = {f"{name}{lazy}": how for name, how in DEFAULT_KEYWORDS.items() for lazy in ("", "_lazy")}


def translations() -> list[Path]:
    """The files of all packages that are translated."""
    return [path for package in PACKAGES for path in sorted(package.glob("locale/*/LC_MESSAGES/django.po"))]


def messages(package: Path) -> Catalog:
    """All that a package says to people by gettext, in its modules and its templates."""
    catalog = Catalog()
    for path in sorted([*package.rglob("*.py"), *package.rglob("templates/**/*.html")]):
        source = path.read_text()
        if path.suffix == ".html":
            source = templatize(source, origin=str(path))
        for _, keyword, found, _ in extract_python(BytesIO(source.encode()), KEYWORDS, [], {"encoding": "utf-8"}):
            add(catalog, KEYWORDS[keyword], found)
    return catalog


def add(catalog: Catalog, how: tuple[object, ...] | None, found: str | tuple[str | None, ...]) -> None:
    """Add a message to a catalog: the arguments of a call, of which `how` says what they are."""
    given = found if isinstance(found, tuple) else (found,)
    context = next((given[at[0] - 1] for at in how or () if isinstance(at, tuple)), None)
    ids = [given[at - 1] for at in how or (1,) if isinstance(at, int)]
    catalog.add(tuple(ids) if len(ids) > 1 else ids[0], context=context)


def read(path: Path) -> Catalog:
    """A translation."""
    with path.open("rb") as file:
        return read_po(file, locale=path.parts[-3])


def said(catalog: Catalog) -> Iterator[Message]:
    """The messages of a catalog, without its header."""
    return (message for message in catalog if message.id)


def compiled(catalog: Catalog) -> bytes:
    """What Django reads of a translation."""
    made = BytesIO()
    catalog.creation_date = catalog.revision_date = NO_DATE
    write_mo(made, catalog)
    return made.getvalue()


def bring_up_to_date(path: Path) -> None:
    """Give a translation the messages of today, and compile it."""
    catalog = read(path)
    catalog.update(messages(path.parents[3]), no_fuzzy_matching=True, update_header_comment=False)
    catalog.obsolete.clear()
    with path.open("wb") as file:
        file.write(HEADER.format(catalog.locale, catalog.plural_forms).encode())
        write_po(file, catalog, no_location=True, sort_output=True, width=0, omit_header=True)
    path.with_suffix(".mo").write_bytes(compiled(catalog))


if __name__ == "__main__":
    for each in translations():
        bring_up_to_date(each)
        missing = [message.id for message in said(read(each)) if not any(message.string)]
        print(each, "is complete." if not missing else f"lacks {missing}")
