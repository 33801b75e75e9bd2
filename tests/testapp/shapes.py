"""Models of iterations: one of each kind of field, as a column to order by and as a key."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import F
from django.db.models.functions import Now

FEATURES = ["supports_stored_generated_columns", "supports_expression_defaults"]
"""Databases without them (Datastore) do not have the models."""
unreadable: set[int] = set()
"""Values of which `Picky` makes nothing."""


class Picky(models.IntegerField):
    """Some of its values cannot be read."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if value in unreadable:
            raise ValueError(f"cannot be decrypted: {value}")
        return value


class Code:
    """What a `Coded` column gives: no value that travels, and in no order."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)

    def __reduce__(self) -> Any:
        raise TypeError("a code cannot travel")


class Coded(models.IntegerField):
    """Numbers that are objects of somebody's own."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else Code(value)

    def to_python(self, value: Any) -> Any:
        return value if isinstance(value, Code) or value is None else Code(int(value))

    def get_prep_value(self, value: Any) -> Any:
        return value.number if isinstance(value, Code) else value


class ShapeQuerySet(models.QuerySet["Shape"]):
    """Has something of its own."""

    tenant: Any = None

    def _clone(self) -> Any:
        clone = super()._clone()  # type: ignore[misc]
        clone.tenant = self.tenant
        return clone


class Shape(models.Model):
    """A column of each kind."""

    number = models.IntegerField(null=True)
    double = models.GeneratedField(expression=F("number") * 2, output_field=models.IntegerField(), db_persist=True)
    big = models.BigIntegerField(default=0)
    secret = Picky(default=0)
    code = Coded(null=True)
    ratio = models.FloatField(null=True)
    money = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    fine = models.DecimalField(max_digits=24, decimal_places=20, default=0)
    flag = models.BooleanField(default=False)
    text = models.TextField(default="")
    blob = models.BinaryField(default=b"")
    at = models.DateTimeField(db_default=Now())
    day = models.DateField(null=True)
    clock = models.TimeField(null=True)
    took = models.DurationField(null=True)
    token = models.UUIDField(null=True)
    address = models.GenericIPAddressField(null=True)
    image = models.FileField(default="")
    data = models.JSONField(null=True)
    other = models.ForeignKey("self", models.SET_NULL, null=True, related_name="others")
    loose = models.ForeignKey("Piece", models.DO_NOTHING, db_constraint=False, related_name="loosely", default=0)
    objects = ShapeQuerySet.as_manager()

    class Meta:
        required_db_features = FEATURES


class Alien(models.Model):
    """The same table, as somebody sees it who believes that no column is without a value."""

    number = models.IntegerField()
    text = models.TextField()

    class Meta:
        managed = False
        db_table = "testapp_shape"
        required_db_features = FEATURES


class Piece(models.Model):
    """Several, one or none belong to a Shape."""

    shape = models.ForeignKey(Shape, models.CASCADE, related_name="pieces")
    weight = models.IntegerField(default=0)
    alien = models.ForeignKey(Alien, models.DO_NOTHING, null=True, db_constraint=False, related_name="pieces")

    class Meta:
        required_db_features = FEATURES


class Circle(Shape):
    """Multi-table inheritance."""

    radius = models.IntegerField(default=0)

    class Meta:
        required_db_features = FEATURES


class Square(Shape):
    """Another."""

    side = models.IntegerField(default=0)

    class Meta:
        required_db_features = FEATURES


class Pair(models.Model):
    """A key of two columns, of which one is a relation's."""

    pk = models.CompositePrimaryKey("word", "right")
    word = models.ForeignKey("Word", models.CASCADE)
    right = models.IntegerField()
    number = models.IntegerField(null=True)


class Triple(models.Model):
    """A key of three columns, of which one is not as its database has it."""

    pk = models.CompositePrimaryKey("left", "middle", "right")
    left = models.IntegerField()
    middle = Coded()
    right = models.CharField(max_length=20)


class ByBytes(models.Model):
    """Keys that a driver may give as a memoryview."""

    id = models.BinaryField(primary_key=True)


class ByCode(models.Model):
    """Keys that are objects of somebody's own."""

    id = Coded(primary_key=True)
    text = models.CharField(max_length=20, default="")


class ByMoney(models.Model):
    """Decimals as keys."""

    id = models.DecimalField(primary_key=True, max_digits=12, decimal_places=4)


class ByTime(models.Model):
    """Times as keys."""

    id = models.DateTimeField(primary_key=True, db_default=Now())

    class Meta:
        required_db_features = FEATURES


class ByRatio(models.Model):
    """Floating-point numbers as keys."""

    id = models.FloatField(primary_key=True)
