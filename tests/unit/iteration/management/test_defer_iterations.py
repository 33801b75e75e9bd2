"""`manage.py defer_iterations`."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from testapp import iterations
from testapp.models import Row

from defer_core.spi import clock
from defer_core.testing import drain, run_one
from defer_iteration import current_shard
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.management.commands.defer_iterations import bar
from defer_iteration.model.iteration import IterationState
from defer_iteration.stores import aliases
from defer_iteration.stores.routing import store_on

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("defer_iterations", *args, stdout=out)
    return out.getvalue()


def test_nothing_to_list(queue: Any) -> None:
    assert run() == "There are no iterations.\n"


def test_a_line_says_how_far_it_has_come(queue: Any, rows: Any) -> None:
    rows(1200)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _delete_marker=False, _shards=2)
    drain(queue)
    text = run()
    for part in (handle.id[:8], "testapp.iterations:callback", "done", "1,200 of 1,200", "2/2 shards"):
        assert part in text


def test_watch_ends_when_nothing_is_under_way(queue: Any, rows: Any) -> None:
    rows(3)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _delete_marker=False)
    drain(queue)
    assert "3 of 3" in run("--watch", "0.01")


def test_watch_follows_what_is_under_way(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(30)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _delete_marker=False)
    now = [clock.now()]

    def meanwhile(interval: float) -> None:
        now[0] += interval
        run_one(queue.queued()[0], queue)

    monkeypatch.setattr(time, "sleep", meanwhile)
    with clock.replaced(lambda: now[0]):
        looks = run("--watch", "10").splitlines()
    assert [next(state for state in IterationState if f"  {state} " in look) for look in looks] == [
        IterationState.NEW,
        IterationState.RUNNING,
        IterationState.FINALIZING,
        IterationState.DONE,
    ]
    assert "0 of 30" in looks[1] and "0/1 shards" in looks[1]
    assert "30 of 30" in looks[2] and "1/1 shards" in looks[2] and "2 rows/s" in looks[2]


def test_watch_ends_when_told_to(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(interval: float) -> None:
        raise KeyboardInterrupt

    rows(3)
    walk(Row.objects.all(), iterations.callback, iterations.finalize)
    monkeypatch.setattr(time, "sleep", interrupted)
    assert "  new " in run("--watch")


def test_watch_looks_every_few_seconds(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def interrupted(seconds: float) -> None:
        looks.append(seconds)
        raise KeyboardInterrupt

    rows(3)
    walk(Row.objects.all(), iterations.callback, iterations.finalize)
    monkeypatch.setattr(time, "sleep", interrupted)
    run("--watch")
    run("--watch", "0.5")
    assert looks == [5.0, 0.5]
    with pytest.raises(CommandError, match="above 0"):
        run("--watch", "0")


def test_a_database_that_is_locked_is_one_line(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*args: Any, **kwargs: Any) -> Any:
        raise OperationalError("database is locked\nby another")

    monkeypatch.setattr(type(store_on("default")), "list", locked)
    for command in ([], ["--watch"], ["show", "1"]):
        with pytest.raises(CommandError) as raised:
            run(*command)
        assert str(raised.value) == r"A database of iterations cannot be used: database is locked\nby another"


def test_missing_tables_are_named_with_the_remedy(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "has_tables", lambda alias: False)
    with pytest.raises(CommandError, match=r"run manage\.py migrate"):
        run()


def test_actions_by_the_beginning_of_an_id(queue: Any, rows: Any) -> None:
    rows(3)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize)
    run("pause", handle.id[:6])
    assert handle.progress().state is IterationState.PAUSED
    run("resume", handle.id)
    run("cancel", handle.id)
    assert handle.progress().state is IterationState.CANCELLED
    with pytest.raises(CommandError, match="nothing to pause"):
        run("pause", handle.id)
    with pytest.raises(CommandError, match="No iterations"):
        run("pause", "zzz")
    with pytest.raises(CommandError, match="which"):
        run("pause")


def test_show_lists_shards_counters_and_quarantined_rows(queue: Any, rows: Any) -> None:
    keys = rows(6)

    def poison(row: Any) -> None:
        if row.pk == keys[1]:
            raise ValueError("bad row")
        shard = current_shard()
        assert shard is not None
        number = keys.index(row.pk)  # keys are in no order of creation on Datastore
        shard.least("lowest", number - 0.5)
        shard.collect("odd ones", f"a\n{number}", cap=2)

    iterations.before.append(poison)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=2, _on_error="quarantine")
    drain(queue)
    lines = (text := run("show", handle.id)).splitlines()
    assert "  passed: 5" in lines and "  lowest: -0.5" in lines
    assert "  odd ones: a\\n0, a\\n2 and more" in lines
    assert f"quarantined ({keys[1]},) after 5 calls: ValueError: bad row" in text
    assert run("retry-quarantined", handle.id)


def test_bars() -> None:
    assert bar(0, 10) == "[" + " " * 24 + "]"
    assert bar(5, 10) == "[" + "#" * 12 + " " * 12 + "]"
    assert bar(12, 10) == bar(0, 0) == "[" + "#" * 24 + "]"
    assert bar(3, None) == "[" + "." * 24 + "]"
