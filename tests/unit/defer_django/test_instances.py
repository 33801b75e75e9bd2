"""Model instances on the wire."""

from __future__ import annotations

import copy
import datetime as dt
import uuid
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import django
import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.db.models import Count
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy, ngettext_lazy, npgettext_lazy
from testapp import tasks
from testapp.models import (
    Author,
    Book,
    Cover,
    Note,
    Novel,
    Reduced,
    Row,
    Scan,
    Strict,
    Tag,
    Token,
    Tracked,
    revive_book,
)

from defer_core import defer
from defer_core.errors import CallableNotFoundError, DecodeError, UnserializableError
from defer_core.spi import current, decode, encode
from defer_core.testing import configured, drain, in_memory
from defer_core.wire import callables
from defer_django import instances

pytestmark = pytest.mark.django_db


def there_and_back(value: Any, **settings: Any) -> Any:
    with configured(transport="memory", **settings):
        return decode(encode(value))


def caches(instance: Any) -> tuple[Any, Any]:
    return instance._state.fields_cache, instance.__dict__.get("_prefetched_objects_cache")


@pytest.fixture
def book() -> Book:
    author = Author.objects.create(name="Ada", born=dt.date(1815, 12, 10))
    book = Book.objects.create(
        title="Notes",
        price=Decimal("9.90"),
        published=dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone.utc),
        author=author,
    )
    book.tags.add(Tag.objects.create(name="science"))
    Note.objects.create(text="read", about=book)
    Cover.objects.create(book=book, colour="blue")
    loaded = Book.objects.select_related("author", "cover").prefetch_related("tags", "notes").get(pk=book.pk)
    assert loaded._state.fields_cache.keys() == {"author", "cover"}
    assert loaded._prefetched_objects_cache.keys() == {"tags", "notes"}  # type: ignore[attr-defined]
    return loaded


def test_fields_and_plain_attributes_travel_without_pickle(book: Book) -> None:
    book.remark = {"from": "caller", "at": (1, 2)}  # type: ignore[attr-defined]
    arrived = there_and_back(book, allow_pickle=False)
    assert type(arrived) is Book and arrived == book
    for field in Book._meta.concrete_fields:
        assert getattr(arrived, field.attname) == getattr(book, field.attname)
    assert arrived.remark == {"from": "caller", "at": (1, 2)}
    assert (arrived._state.db, arrived._state.adding) == ("default", False)


def test_caches_of_every_relation_stay_behind(book: Book) -> None:
    arrived = there_and_back(book)
    assert caches(arrived) == ({}, None)
    note = Note.objects.get()
    assert note.about == book and "about" in note._state.fields_cache
    assert caches(there_and_back(note)) == ({}, None)


def test_the_callers_instance_is_untouched(book: Book) -> None:
    before, state = copy.copy(book.__dict__), book._state
    fields_cache, prefetched = dict(state.fields_cache), dict(book._prefetched_objects_cache)  # type: ignore[attr-defined]
    author = book.author
    there_and_back([book, {"self": book}])
    assert book.__dict__ == before and book._state is state
    assert dict(state.fields_cache) == fields_cache and book._prefetched_objects_cache == prefetched  # type: ignore[attr-defined]
    assert book.author is author


def test_caches_stay_behind_at_any_depth(book: Book) -> None:
    author = book.author
    author._prefetched_objects_cache = {"books": [book]}  # type: ignore[union-attr]
    arrived = there_and_back({"a": [(book, {"deep": author})]})
    [(inner, rest)] = arrived["a"]
    assert caches(inner) == ({}, None) and caches(rest["deep"]) == ({}, None)


def test_wiping_can_be_turned_off(book: Book, calls: list[Any]) -> None:
    defer(tasks.record, book, _wipe_related_caches=False, _transactional=False)
    defer(tasks.record, book, _transactional=False)
    drain()
    kept, wiped = calls[0][0], calls[1][0]
    assert kept._state.fields_cache["author"] == book.author
    assert [tag.name for tag in kept._prefetched_objects_cache["tags"]] == ["science"]
    assert caches(wiped) == ({}, None)


def test_the_self_of_a_deferred_method_is_wiped(book: Book) -> None:
    payload = encode(callables.to_ref(book.retitle, current()))
    func = callables.from_ref(decode(payload), current())
    assert func.__self__ == book and caches(func.__self__) == ({}, None)
    defer(book.retitle, "Sketch", _transactional=False)
    drain()
    assert Book.objects.get(pk=book.pk).title == "Sketch"


def test_deferred_fields_stay_deferred(book: Book) -> None:
    arrived = there_and_back(Book.objects.only("title").get(pk=book.pk))
    assert arrived.get_deferred_fields() == {"price", "published", "author_id"}
    assert arrived.price == Decimal("9.90")


def test_annotations_travel(book: Book) -> None:
    arrived = there_and_back(Book.objects.annotate(n=Count("tags")).get(pk=book.pk))
    assert arrived.n == 1


def test_an_unsaved_instance_stays_unsaved() -> None:
    arrived = there_and_back(Author(name="new"))
    assert (arrived.pk, arrived.name, arrived._state.adding, arrived._state.db) == (None, "new", True, None)


def test_the_alias_travels() -> None:
    author = Author(name="elsewhere", pk=3)
    author._state.db, author._state.adding = "other", False
    assert there_and_back(author)._state.db == "other"


def test_init_is_not_called() -> None:
    strict = Strict(name="x")
    made = Strict.made
    assert there_and_back(strict).name == "x"
    assert Strict.made == made


def test_a_reduce_of_its_own_is_honoured() -> None:
    arrived = there_and_back([Reduced(pk=7, name="original")], allow_pickle=False)[0]
    assert (arrived.pk, arrived.name, arrived.revived) == (7, "revived", True)


def test_a_reduce_that_gives_the_whole_dict_carries_no_relation_caches(
    monkeypatch: pytest.MonkeyPatch, book: Book
) -> None:
    monkeypatch.setattr(Book, "__reduce_ex__", lambda self, protocol: (revive_book, (self.__dict__.copy(),)))
    assert "author" in book._state.fields_cache
    arrived = there_and_back([book], allow_pickle=False)[0]
    assert (arrived.title, arrived._state.db, arrived._state.fields_cache) == ("Notes", "default", {})


def test_a_getstate_of_its_own_is_honoured(monkeypatch: pytest.MonkeyPatch, book: Book) -> None:
    from django.db.models import Model

    def getstate(self: Any) -> Any:
        state = Model.__getstate__(self)  # type: ignore[attr-defined]
        return {**state, "title": "by getstate"}

    monkeypatch.setattr(Book, "__getstate__", getstate, raising=False)
    arrived = there_and_back(book, allow_pickle=False)
    assert arrived.title == "by getstate" and caches(arrived) == ({}, None)


def test_a_setstate_of_its_own_is_honoured(monkeypatch: pytest.MonkeyPatch, book: Book) -> None:
    from django.db.models import Model

    def setstate(self: Any, state: Any) -> None:
        Model.__setstate__(self, {**state, "title": "by setstate"})  # type: ignore[attr-defined]

    monkeypatch.setattr(Book, "__setstate__", setstate, raising=False)
    arrived = there_and_back(book, allow_pickle=False)
    assert arrived.title == "by setstate" and caches(arrived) == ({}, None)


def test_uuid_keys_and_inheritance() -> None:
    token = Token.objects.create(label="t")
    arrived = there_and_back(token, allow_pickle=False)
    assert isinstance(arrived.pk, uuid.UUID) and arrived == token
    novel = Novel.objects.create(title="long", pages=900)
    again = there_and_back(Novel.objects.get(pk=novel.pk), allow_pickle=False)
    assert (type(again), again.title, again.pages, again.pk) == (Novel, "long", 900, novel.pk)


def test_a_model_that_is_not_here_is_not_readable_yet() -> None:
    from defer_django import instances

    with pytest.raises(CallableNotFoundError, match=r"testapp\.Gone"):
        instances.decode(["testapp.Gone", "default", False, {}])


def test_a_lazy_user_arrives_as_the_user() -> None:
    row = Row.objects.create(number=5)
    assert there_and_back(SimpleLazyObject(lambda: row), allow_pickle=False) == row
    assert isinstance(there_and_back(SimpleLazyObject(AnonymousUser)), AnonymousUser)


def test_lazy_translations_and_safe_strings() -> None:
    lazy = there_and_back(gettext_lazy("Yes"), allow_pickle=False)
    assert type(lazy).__name__ == "__proxy__" and str(lazy) == "Yes"
    safe = there_and_back([mark_safe("<b>")], allow_pickle=False)[0]
    assert type(safe) is SafeString and safe == "<b>"


def test_model_classes_travel_by_name() -> None:
    assert there_and_back(Book, allow_pickle=False) is Book


def test_managers_travel_by_their_place() -> None:
    assert there_and_back(Token.objects, allow_pickle=False) is Token.objects
    with in_memory():
        defer(Token.objects.create, label="made later")
        drain()
    assert Token.objects.get().label == "made later"


def test_a_manager_that_is_not_here_is_not_readable_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = encode(Token.objects)
    monkeypatch.setattr(Token._meta, "managers_map", {})
    with pytest.raises(CallableNotFoundError, match=r"testapp\.Token has no manager 'objects'"):
        decode(packed)


def test_a_manager_of_related_rows_is_refused(book: Book) -> None:
    with pytest.raises(UnserializableError, match="RelatedManager"):
        encode(book.tags)


def test_instances_inside_pickled_values_are_wiped_too(book: Book) -> None:
    arrived = there_and_back(SimpleNamespace(book=book))
    assert arrived.book == book
    assert caches(arrived.book) == ({}, None)


def test_a_queryset_arrives_as_the_rows_that_it_was(book: Book) -> None:
    arrived = there_and_back(Book.objects.select_related("author").all())
    assert list(arrived) == [book]
    assert caches(arrived[0]) == ({}, None)


def test_a_file_kept_beside_the_fields_stays_a_file() -> None:
    scan = Scan(image="covers/a.png")
    scan.former = Scan(image="covers/old.png").image
    arrived = there_and_back(scan)
    assert type(arrived.former) is type(scan.image)
    assert arrived.former.name == "covers/old.png"


def test_an_unsaved_file_is_refused_and_a_saved_one_travels_by_name() -> None:
    from django.core.files.base import ContentFile

    scan = Scan(image="covers/a.png")
    assert scan.image.name == "covers/a.png"
    assert there_and_back(scan, allow_pickle=False).image.name == "covers/a.png"
    scan.image = ContentFile(b"bytes", name="b.png")
    assert scan.image.name == "b.png"
    with pytest.raises(UnserializableError, match=r"b\.png"):
        there_and_back(scan)


def test_a_body_sets_the_state_of_instances_alone() -> None:
    with configured(transport="memory"), pytest.raises(DecodeError, match=r"makes a dict"):
        instances.decode([dict, [], {"x": 1}])


class Tracker:
    """An attribute that refers back to its instance, as the trackers of packages do."""

    def __init__(self, owner: Any, other: Any = None) -> None:
        self.owner, self.other = owner, other


class SlottedTracker:
    __slots__ = ("owner",)

    def __init__(self, owner: Any) -> None:
        self.owner = owner


@pytest.mark.parametrize("make", [Tracker, SlottedTracker, lambda owner: SimpleNamespace(owner=owner)])
def test_an_attribute_refers_back_to_its_instance(book: Book, make: Any) -> None:
    book.tracker = make(book)  # type: ignore[attr-defined]
    arrived = there_and_back([book])[0]
    assert arrived == book and arrived.tracker.owner is arrived
    assert type(arrived.tracker) is type(book.tracker)  # type: ignore[attr-defined]
    assert caches(arrived) == ({}, None)
    assert book._state.fields_cache.keys() == {"author", "cover"}


def test_attributes_at_any_depth_refer_back(book: Book) -> None:
    book.trackers = [Tracker(book), {"deep": (Tracker([book]),)}]  # type: ignore[attr-defined]
    arrived = there_and_back({"book": book})["book"]
    first, rest = arrived.trackers
    assert first.owner is arrived and rest["deep"][0].owner[0] is arrived


def test_two_that_know_each_other_and_the_instance(book: Book) -> None:
    one = book.one = Tracker(book)  # type: ignore[attr-defined]
    two = book.two = Tracker(book, one)  # type: ignore[attr-defined]
    one.other = two
    arrived = there_and_back(book)
    assert arrived.one.other is arrived.two and arrived.two.other is arrived.one
    assert arrived.one.owner is arrived.two.owner is arrived


def test_two_instances_that_know_each_other(book: Book) -> None:
    author = Author.objects.get()
    book.tracker, author.tracker = Tracker(author), Tracker(book)  # type: ignore[attr-defined]
    arrived = there_and_back(book)
    assert arrived.tracker.owner == author and arrived.tracker.owner.tracker.owner is arrived
    assert caches(arrived.tracker.owner) == ({}, None)


def test_an_attribute_that_is_the_instance(book: Book) -> None:
    book.me = [book]  # type: ignore[attr-defined]
    arrived = there_and_back(book)
    assert arrived.me[0] is arrived
    with pytest.raises(UnserializableError, match=r"me\[0\].*itself"):
        there_and_back(book, allow_pickle=False)


def test_an_instance_that_is_in_a_pickle_and_refers_back_to_itself(book: Book) -> None:
    book.me = book  # type: ignore[attr-defined]
    arrived = there_and_back(SimpleNamespace(book=book, tracker=Tracker(book)))
    assert arrived.book.me is arrived.book is arrived.tracker.owner
    assert caches(arrived.book) == ({}, None)


def test_an_instance_beside_what_refers_to_it_is_packed_as_it_always_was(book: Book) -> None:
    beside, arrived = there_and_back([Tracker(book), book])
    assert beside.owner == arrived == book and b"django.Model" in encode([Tracker(book), book])


def test_a_file_field_of_an_instance_that_refers_back_travels_by_its_name() -> None:
    scan = Scan(image="covers/a.png")
    scan.tracker = Tracker(scan)  # type: ignore[attr-defined]
    assert scan.image.name == "covers/a.png"
    arrived = there_and_back(scan)
    assert arrived.tracker.owner is arrived and arrived.image.name == "covers/a.png"
    assert arrived.image.instance is arrived
    from django.core.files.base import ContentFile

    scan.image = ContentFile(b"bytes", name="b.png")
    assert scan.image.name == "b.png"
    with pytest.raises(UnserializableError, match=r"b\.png"):
        there_and_back(scan)


def test_a_reduce_of_its_own_and_an_attribute_that_refers_back(monkeypatch: pytest.MonkeyPatch, book: Book) -> None:
    version = {"_django_version": django.__version__}
    monkeypatch.setattr(Book, "__reduce_ex__", lambda self, protocol: (Book, (), self.__dict__ | version))
    book.tracker = Tracker(book)  # type: ignore[attr-defined]
    arrived = there_and_back(book)
    assert arrived.tracker.owner is arrived and caches(arrived) == ({}, None)


def test_the_tracker_of_a_package_sees_what_the_task_changes() -> None:
    tracked = Tracked(name="ada", pk=1)
    arrived = there_and_back(tracked)
    assert arrived.tracker.instance is arrived and not arrived.tracker.has_changed("name")
    arrived.name = "bob"
    assert arrived.tracker.has_changed("name") and arrived.tracker.previous("name") == "ada"


def test_the_self_of_a_deferred_method_refers_back(calls: list[Any]) -> None:
    tracked = Tracked.objects.create(name="ada")
    with in_memory():
        defer(tracked.rename, "bob")
        drain()
    assert calls == [("renamed", "ada", "bob")]


@pytest.mark.parametrize("number", ["n", None, 2])
def test_plurals_that_are_chosen_later(number: Any) -> None:
    plural = ngettext_lazy("%(n)d item", "%(n)d items", number)
    in_context = npgettext_lazy("shop", "%(n)d item", "%(n)d items", number)
    for each in there_and_back([plural, in_context, SimpleNamespace(a=plural)])[:2]:
        if number == 2:
            assert str(each % {"n": 2}) == "2 items"
        elif number == "n":
            assert (each % {"n": 1}, each % {"n": 2}) == ("1 item", "2 items")
    if number is None:
        arrived = there_and_back(ngettext_lazy("%d item", "%d items"))
        assert (arrived % 1, arrived % 2) == ("1 item", "2 items")


def test_a_validation_error_of_a_length_travels() -> None:
    with pytest.raises(ValidationError) as caught:
        MaxLengthValidator(3)("four")
    arrived = there_and_back(caught.value)
    assert arrived.messages == caught.value.messages == ["Ensure this value has at most 3 characters (it has 4)."]
    assert there_and_back(ValidationError([caught.value])).messages == caught.value.messages


def test_an_asynchronous_manager_s_method_runs_and_an_iterator_does_not() -> None:
    with in_memory(store="memory"):
        defer(Token.objects.acreate, label="made later")
        assert drain().done == 1
        defer(Token.objects.iterator)
        assert drain().done == 0
    assert Token.objects.get().label == "made later"


def test_what_cannot_be_read_again_is_found_in_an_attribute(book: Book) -> None:
    book.remark = [CannotBeRead(1, "x")]  # type: ignore[attr-defined]
    with pytest.raises(UnserializableError, match="cannot be read again") as caught:
        there_and_back({"book": book})
    assert caught.value.path == "['book'].remark[0]"


class CannotBeRead(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
