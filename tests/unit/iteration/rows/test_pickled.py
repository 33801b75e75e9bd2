"""Classes and attributes of other people's querysets travel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models import F, QuerySet
from django.db.models.query import ModelIterable
from testapp import iterations
from testapp.models import Row, Shape

from defer_core.errors import UnserializableError
from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.rows.pickled import pack, unpack
from defer_iteration.rows.queryset import QuerySetRows

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "other"]), pytest.mark.on_sql]


# --- classes and attributes of other people's ------------------------------------------------------------------------


class Loud(ModelIterable):
    """Makes instances in a way of its own, and leaves some out."""

    def __iter__(self) -> Iterator[Any]:
        for row in super().__iter__():
            row.loud = True
            if not (row.number == 7 or 20 <= row.number < 60):
                yield row


def loud() -> Any:
    """A function that returns a queryset of `Loud`."""
    queryset = Row.objects.all()
    queryset._iterable_class = Loud
    return queryset


@pytest.mark.parametrize("sizes", [1, 8, 2000])
def test_a_subclass_of_modeliterable(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, sizes: int) -> None:
    monkeypatch.setattr("defer_iteration.rows.pages.FIRST", sizes)
    rows(100)
    wanted = [row.pk for row in loud()]
    found: list[Any] = []
    iterations.before.append(lambda row: found.append(row.loud))
    walk(loud(), iterations.callback, iterations.finalize, _shards=2)
    drain(queue)
    assert sorted(iterations.seen) == wanted and found == [True] * 59


class Noting(QuerySet[Shape]):
    """Notes what instances are to have, as django-model-utils does: the annotations of the last call."""

    _annotated: tuple[str, ...] | list[str] = ()

    def annotate(self, *args: Any, **kwargs: Any) -> Any:
        found = super().annotate(*args, **kwargs)
        found._annotated = list(kwargs)
        return found

    def _clone(self) -> Any:
        clone = super()._clone()  # type: ignore[misc]
        clone._annotated = self._annotated
        return clone


def test_annotations_that_a_queryset_notes_are_kept(db: None) -> None:
    rows = QuerySetRows(Noting(Shape).annotate(twice=F("number") * 2), "twice")
    assert set(rows.with_key._annotated) == {"twice", *rows.ordering.attributes} - {"id"}


def test_attributes_of_a_queryset_travel(db: None) -> None:
    shapes = Shape.objects.all()
    shapes.tenant = {"name": "acme"}
    assert unpack(pack(shapes)).tenant == {"name": "acme"}
    assert QuerySetRows(unpack(pack(shapes))).queryset.tenant == {"name": "acme"}
    fetched = Shape.objects.prefetch_related("pieces")
    list(fetched)
    again = unpack(pack(fetched))
    assert again._result_cache is None and again._prefetch_related_lookups == ("pieces",)


def test_an_attribute_that_cannot_travel_is_named(queue: Any) -> None:
    shapes = Shape.objects.all()
    shapes.tenant = lambda: "acme"
    with pytest.raises(UnserializableError, match="attribute 'tenant'"):
        walk(shapes, iterations.callback, iterations.finalize)
