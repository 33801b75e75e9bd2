"""What is raised outside a row is recorded and changes nothing else, and what has stopped can be resumed."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError
from testapp import iterations
from testapp.models import Row

from defer_core.errors import PermanentTaskFailure
from defer_core.run import stopping
from defer_core.spi import clock, sweep
from defer_core.testing import drain, run_one
from defer_iteration import IterationState
from defer_iteration import defer_iteration_with_finalize as walk


@pytest.fixture(autouse=True)
def quiet(caplog: Any) -> None:
    """Logged tracebacks have what cannot be encoded, and so cannot be sent to the process that collects the results."""
    caplog.set_level(logging.CRITICAL, "defer")


pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


UNSTORABLE = "no such file: caf\udce9 \x00.csv"


STORED = r"no such file: caf\udce9 \x00.csv"


def raising(error: Exception) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise error

    return call


def shown(handle: Any) -> str:
    out = io.StringIO()
    call_command("defer_iterations", "show", handle.id, stdout=out)
    call_command("defer_iterations", stdout=out)
    return out.getvalue()


# --- the last error is kept -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["source", "key_ranges_getter"])
def test_what_the_plan_raises_is_kept_until_it_succeeds(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    keys = rows(4)
    handle = walk(
        iterations.all_rows, iterations.callback, iterations.finalize, key_ranges_getter=iterations.whole_range
    )
    name = "all_rows" if where == "source" else "whole_range"
    with monkeypatch.context() as patch:
        patch.setattr(iterations, name, raising(KeyError(UNSTORABLE)))
        drain(queue, max_attempts=3, on_error="ignore")
    look = handle.progress()
    assert (look.state, look.errors, look.reason) == (IterationState.NEW, 3, "")
    assert look.failed_at == pytest.approx(clock.now(), abs=60)
    assert "KeyError" in look.error and "Traceback" in look.error and r"\udce9" in look.error
    assert shown(handle).count("KeyError") == 2 and "3 attempts have failed" in shown(handle)
    later = clock.now() + 4000
    with clock.replaced(lambda: later):
        assert sweep().counts["requeued"] == 1, "it is tried again"
    run_one(queue.queued()[0], queue)
    look = handle.progress()
    assert (look.state, look.errors, look.error, look.failed_at) == (IterationState.RUNNING, 0, "", None)
    drain(queue)
    assert sorted(iterations.seen) == keys and iterations.finalized == [()]


def test_what_a_shard_raises_outside_a_row_is_kept_until_rows_are_passed(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = rows(4)
    handle = walk(iterations.all_rows, iterations.callback, iterations.finalize, _shards=1, _delete_marker=False)
    run_one(queue.queued()[0], queue)
    monkeypatch.setattr(iterations, "all_rows", raising(DatabaseError("column testapp_row.rank does not exist")))
    for _ in range(2):
        with pytest.raises(DatabaseError):
            run_one(queue.queued()[0], queue)
    [shard] = handle.progress().shards
    assert (shard.errors, shard.attempts, shard.failing) == (2, 0, None)
    assert "column testapp_row.rank" in shard.error and shard.failed_at is not None
    assert shown(handle).count("column testapp_row.rank") == 2
    monkeypatch.undo()
    drain(queue)
    [shard] = handle.progress().shards
    assert (shard.errors, shard.error, shard.failed_at) == (0, "", None)
    assert sorted(iterations.seen) == keys and iterations.finalized == [()]


def test_what_finalize_raises_is_kept(queue: Any, rows: Any) -> None:
    rows(2)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _delete_marker=False)
    iterations.finalizing.append(raising(RuntimeError(UNSTORABLE)))
    drain(queue, max_attempts=3, on_error="ignore")
    look = handle.progress()
    assert (look.state, look.errors) == (IterationState.FINALIZING, 3) and STORED in look.error
    assert STORED in shown(handle)


def test_what_fails_for_good_in_finalize_is_held_with_a_reason_that_can_be_stored(queue: Any, rows: Any) -> None:
    rows(2)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize)
    iterations.finalizing.append(raising(PermanentTaskFailure(UNSTORABLE)))
    drain(queue)
    look = handle.progress()
    assert look.state is IterationState.HELD and STORED in look.reason and "Traceback" in look.error


def test_an_attempt_that_was_superseded_notes_nothing(queue: Any, rows: Any) -> None:
    rows(4)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _delete_marker=False)

    def overtake(row: Any) -> None:
        iterations.before.clear()
        handle.pause()
        handle.resume()

    iterations.before.append(overtake)
    run_one(queue.queued()[0], queue)
    run_one(queue.queued()[0], queue)
    assert [shard.errors for shard in handle.progress().shards] == [0]


def test_that_the_error_cannot_be_recorded_does_not_hide_it(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    from defer_iteration.stores.django import DjangoIterationStore

    caplog.set_level(logging.ERROR, "defer")
    handle = walk(iterations.all_rows, iterations.callback, iterations.finalize)
    monkeypatch.setattr(iterations, "all_rows", raising(KeyError("the first")))
    monkeypatch.setattr(DjangoIterationStore, "record_error", raising(OSError("the second")))
    with pytest.raises(KeyError, match="the first"):
        run_one(queue.queued()[0], queue)
    assert "the second" in caplog.text and handle.progress().errors == 0


# --- text that a database does not store ------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["quarantine", "fail"])
@pytest.mark.parametrize("atomic", [False, True])
def test_the_text_of_a_rows_error_can_be_stored(queue: Any, rows: Any, on_error: str, atomic: bool) -> None:
    keys = rows(6)

    def read(row: Any) -> None:
        if row.pk == keys[2]:
            error = ValueError("bad byte \x00")
            error.add_note(UNSTORABLE)
            raise error from OSError(UNSTORABLE)

    iterations.before.append(read)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize,
        _shards=1, _on_error=on_error, _max_attempts=2, _delete_marker=False, _atomic=atomic,
    )  # fmt: skip
    drain(queue)
    look = handle.progress()
    if on_error == "fail":
        assert look.state is IterationState.FAILED and STORED in look.reason
        return
    [row] = look.quarantined
    assert row.key == (keys[2],) and row.error.count(STORED) == 2 and r"bad byte \x00" in row.error
    assert handle.retry_quarantined()
    drain(queue)
    [row] = handle.progress().quarantined
    assert row.attempts == 3 and STORED in row.error


# --- what has stopped can go on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["pause", "cancel"])
def test_a_finalize_that_always_raises_can_be_stopped(queue: Any, rows: Any, control: str) -> None:
    rows(4)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize)
    calls: list[int] = []
    iterations.finalizing.append(lambda: calls.append(1))
    iterations.finalizing.append(raising(RuntimeError("report server is gone")))
    drain(queue, max_tasks=8, on_error="ignore", max_attempts=2)
    [late] = [*queue.queued()] or [None]
    before = len(calls)
    assert getattr(handle, control)() and not getattr(handle, control)()
    start = clock.now()
    with clock.replaced(lambda: start + 100_000):
        assert sweep().counts["requeued"] == 0
        drain(queue)
    assert late is None or len(calls) == before
    assert len(calls) == before
    if control == "cancel":
        assert not handle.resume() and handle.progress().state is IterationState.CANCELLED
        assert handle.progress().counters == {"passed": 4}
        return
    del iterations.finalizing[1:]
    assert handle.resume() and not handle.resume()
    drain(queue)
    assert (len(calls), iterations.finalized, iterations.counters) == (before + 1, [()], [{"passed": 4}])


@pytest.mark.parametrize("control", ["pause", "cancel"])
def test_a_finalize_that_is_stopped_while_it_runs_counts_if_it_succeeds(queue: Any, rows: Any, control: str) -> None:
    rows(2)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _delete_marker=False)
    iterations.finalizing.append(lambda: getattr(handle, control)() or pytest.fail("not stopped"))
    drain(queue)
    assert iterations.finalized == [()]
    expected = IterationState.DONE if control == "pause" else IterationState.CANCELLED
    assert handle.progress().state is expected and not handle.resume()
    drain(queue)
    assert iterations.finalized == [()]


def test_a_plan_that_always_raises_can_be_paused_resumed_and_cancelled(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(2)
    handle = walk(iterations.all_rows, iterations.callback, iterations.finalize)
    monkeypatch.setattr(iterations, "all_rows", raising(KeyError("gone")))
    drain(queue, max_attempts=2, on_error="ignore")
    assert handle.pause() and handle.resume()
    drain(queue, max_attempts=2, on_error="ignore")
    assert handle.cancel()
    monkeypatch.undo()
    drain(queue)
    assert iterations.seen == [] and not handle.resume()


def test_a_failed_iteration_is_resumed_at_its_row(queue: Any, rows: Any) -> None:
    keys = rows(12)
    calls: list[Any] = []

    def wrong(row: Any) -> None:
        if row.pk == keys[5]:
            calls.append(row.pk)
            raise ValueError("no lines")

    iterations.before.append(wrong)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _on_error="fail", _max_attempts=2
    )
    drain(queue)
    assert handle.progress().state is IterationState.FAILED and len(calls) == 2
    assert handle.resume() and not handle.resume()
    drain(queue)
    assert handle.progress().state is IterationState.FAILED and len(calls) == 4, "with all of its calls anew"
    iterations.before.clear()
    assert handle.resume()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]


def test_a_failed_iteration_can_be_cancelled(queue: Any, rows: Any) -> None:
    rows(3)
    iterations.before.append(raising(ValueError("no lines")))
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _on_error="fail", _max_attempts=1)
    drain(queue)
    assert handle.cancel() and not handle.resume() and not handle.cancel()
    assert handle.progress().state is IterationState.CANCELLED


# --- sys.exit() -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("on_error", ["fail", "quarantine"])
def test_a_callback_that_exits_is_that_rows_failure(queue: Any, rows: Any, on_error: str, atomic: bool) -> None:
    keys = rows(6)

    def leave(row: Any) -> None:
        if row.pk == keys[2]:
            raise SystemExit(4)

    iterations.before.append(leave)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize,
        _shards=1, _on_error=on_error, _max_attempts=2, _delete_marker=False, _atomic=atomic,
    )  # fmt: skip
    drain(queue)
    look = handle.progress()
    if on_error == "fail":
        assert look.state is IterationState.FAILED and "sys.exit(4)" in look.reason
        return
    [row] = look.quarantined
    assert (row.key, row.attempts) == ((keys[2],), 2) and "sys.exit(4)" in row.error
    assert handle.retry_quarantined()
    drain(queue)
    assert handle.progress().quarantined[0].attempts == 3
    iterations.before.clear()
    handle.retry_quarantined()
    drain(queue)
    assert handle.progress().quarantined == [] and set(iterations.seen) == set(keys)


def test_a_process_that_was_told_to_end_blames_no_row(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(3)

    def told(row: Any) -> None:
        monkeypatch.setattr(stopping, "asked", [15])
        raise SystemExit(143)

    iterations.before.append(told)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _on_error="fail", _max_attempts=1)
    with pytest.raises(SystemExit):
        drain(queue)
    assert handle.progress().state is IterationState.RUNNING


def test_a_finalize_that_exits_is_recorded(queue: Any, rows: Any) -> None:
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize)

    def leave() -> None:
        raise SystemExit(4)

    iterations.finalizing.append(leave)
    drain(queue, max_attempts=2, on_error="ignore")
    assert handle.progress().errors == 2 and "sys.exit(4)" in handle.progress().error
