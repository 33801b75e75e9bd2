"""What the museum does later."""

import os

from djangae.deferred import DEFERRED_ITERATION_SHARD_INDEX_KEY
from djangae.tasks.deferred import (
    PermanentTaskFailure,
    SingularTaskFailure,
    TimeoutException,
    get_deferred_shard_index,
)
from djangae.tasks.environment import (
    is_in_cron,
    is_in_task,
    task_execution_count,
    task_name,
    task_queue_name,
    task_retry_count,
)

from museum.models import Note, Piece

calls = []


def note(text):
    Note.objects.create(text=text)


def note_environment():
    calls.append(
        {
            "in_task": is_in_task(),
            "in_cron": is_in_cron(),
            "name": task_name(),
            "queue": task_queue_name(),
            "retries": task_retry_count(),
            "executions": task_execution_count(),
        }
    )


def has_cached_artist(piece):
    calls.append("artist" in piece._state.fields_cache)


def fail_once():
    calls.append("called")
    if len(calls) == 1:
        raise ValueError("not yet")


def fail_always():
    calls.append("called")
    raise ValueError("never")


def fail_for_good():
    calls.append("called")
    raise PermanentTaskFailure("no such piece")


def fail_singularly():
    calls.append("called")
    if len(calls) == 1:
        raise SingularTaskFailure("locked")


def check(piece, checked=True):
    """The callback of most iterations."""
    index = get_deferred_shard_index()
    assert str(index) == os.environ[DEFERRED_ITERATION_SHARD_INDEX_KEY]
    piece.checked = checked
    piece.shard = index
    piece.checks += 1
    piece.save()


def close_all(checked=True):
    """The finalize of most iterations."""
    calls.append("finalized")
    Piece.objects.update(closed=True)


def check_with(piece, prefix, suffix):
    """A callback with arguments of its own."""
    piece.title = f"{prefix}{piece.pk}{suffix}"
    piece.save()


def close_with(prefix, suffix):
    calls.append((prefix, suffix))


def check_after_two_failures(piece):
    calls.append("called")
    if len(calls) <= 2:
        raise ValueError("not yet")
    check(piece)


def check_never(piece):
    calls.append("called")
    raise ValueError("never")


def check_twenty_a_task(piece):
    """Gives way once in the middle."""
    if len(calls) == 0 and piece.title == "last":
        calls.append("gave way")
        raise TimeoutException(countdown=5)
    check(piece)
