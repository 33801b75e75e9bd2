import json
from contextlib import suppress
from typing import Any

from django.db import migrations, models

from defer_django.store import is_datastore

AT_ONCE = 500


def fill(apps: Any, schema_editor: Any) -> None:
    """Fill the column from the routing; what cannot be read stays empty."""
    if is_datastore(schema_editor.connection.alias):
        return  # where no query finds what lacks a property
    rows = apps.get_model("defer_django", "DeferredTask")._base_manager.using(schema_editor.connection.alias)
    empty, after = rows.filter(queue="").order_by("pk").values_list("pk", "routing"), ""
    while page := list(empty.filter(pk__gt=after)[:AT_ONCE]):
        after = page[-1][0]
        for queue, ids in by_queue(page).items():
            rows.filter(pk__in=ids).update(queue=queue)


def by_queue(page: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Group ids by the queue of their routing."""
    groups: dict[str, list[str]] = {}
    for pk, routing in page:
        with suppress(ValueError):
            groups.setdefault(json.loads(routing).get("queue", "default")[:100], []).append(pk)
    return groups


class Migration(migrations.Migration):
    dependencies: list[tuple[str, str]] = [("defer_django", "0002_failing")]

    operations = [
        migrations.AddField(
            model_name="deferredtask",
            name="queue",
            field=models.CharField(blank=True, db_default="", default="", max_length=100),
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.AddIndex(
            model_name="deferredtask",
            index=models.Index(fields=["queue", "state"], name="defer_queue"),
        ),
    ]
