"""Models for the Django tests: one of each relation, key and oddity."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models
from model_utils import FieldTracker

from . import tasks


class Author(models.Model):
    name = models.CharField(max_length=100)
    born = models.DateField(null=True)

    def __str__(self) -> str:
        return self.name


class Tag(models.Model):
    name = models.CharField(max_length=50)


class Note(models.Model):
    """A generic relation to anything."""

    text = models.CharField(max_length=100)
    content_type = models.ForeignKey(ContentType, on_delete=models.CASCADE)
    object_id = models.PositiveIntegerField()
    about = GenericForeignKey("content_type", "object_id")


class Book(models.Model):
    title = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    published = models.DateTimeField(null=True)
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books", null=True)
    tags = models.ManyToManyField(Tag, related_name="books")
    notes = GenericRelation(Note)

    def retitle(self, title: str) -> None:
        """A method to defer."""
        self.title = title
        self.save()


class Cover(models.Model):
    book = models.OneToOneField(Book, on_delete=models.CASCADE, related_name="cover")
    colour = models.CharField(max_length=20)


class Novel(Book):
    """Multi-table inheritance."""

    pages = models.IntegerField(default=0)


class TokenQuerySet(models.QuerySet["Token"]):
    """Its manager's class is made on the fly, and is found nowhere."""


class Token(models.Model):
    """A UUID key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    label = models.CharField(max_length=50, default="")
    objects = TokenQuerySet.as_manager()


class Word(models.Model):
    """A string key."""

    text = models.CharField(primary_key=True, max_length=200)
    seen = models.IntegerField(default=0)


def revive_book(attributes: dict[str, Any]) -> Book:
    """What a `__reduce_ex__` of tests gives, with a copy of `__dict__`."""
    book = Book()
    book.__dict__.update(attributes)
    return book


def revive(pk: int) -> Reduced:
    """What a pickled or deferred Reduced is made of again."""
    made = Reduced(pk=pk, name="revived")
    made.revived = True
    return made


class Reduced(models.Model):
    """A model with a `__reduce__` of its own."""

    name = models.CharField(max_length=50, default="")
    revived = False

    def __reduce__(self) -> tuple[Any, ...]:
        return revive, (self.pk,)


class Strict(models.Model):
    """Its `__init__` counts, and is not to be called when an instance arrives."""

    name = models.CharField(max_length=50, default="")
    made = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        type(self).made += 1
        super().__init__(*args, **kwargs)


class Scan(models.Model):
    """A file field."""

    image = models.FileField()


class Row(models.Model):
    """What iterations walk over."""

    number = models.IntegerField(default=0)
    rank = models.IntegerField(null=True)
    hits = models.IntegerField(default=0)
    done = models.BooleanField(default=False)


class Tracked(models.Model):
    """A package's attribute that refers back to its instance."""

    name = models.CharField(max_length=50)
    tracker = FieldTracker()

    def rename(self, name: str) -> None:
        """Tell what was known of the name before, as the tracker has it."""
        self.name = name
        tasks.record("renamed", self.tracker.previous("name"), self.name)


class Child(models.Model):
    """Joins that repeat a row."""

    row = models.ForeignKey(Row, on_delete=models.CASCADE, related_name="children")
    name = models.CharField(max_length=20, default="")


class Ledger(models.Model):
    """What tasks leave behind: one entry a run, or (unique key) one entry a thing."""

    key = models.CharField(max_length=100, unique=True)
    count = models.IntegerField(default=0)


from .shapes import *  # noqa: E402, F403 (they refer to those above)
