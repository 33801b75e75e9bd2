"""The run path: what each kind of body and each end of a task is answered with, and what is kept of it."""

from __future__ import annotations

import os
import pickle
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest

from defer_core import (
    Delivery,
    Outcome,
    PermanentTaskFailure,
    SingularTaskFailure,
    clock,
    config,
    current_delivery,
    defer,
    execute,
)
from defer_core.config import active
from defer_core.errors import TaskExitedError
from defer_core.record import State
from defer_core.run import stopping
from defer_core.testing import MemoryStore, MemoryTransport, in_memory
from defer_core.transports.base import Message
from defer_core.wire import envelope, frame

calls: list[Any] = []
NOW = 1_800_000_000.0
DELIVERY = Delivery(task_name="t", queue="q", retry_count=0, started=NOW)


def note(*args: Any) -> None:
    calls.append((args, current_delivery()))


def fail(kind: str) -> None:
    calls.append(kind)
    raise {"permanent": PermanentTaskFailure, "singular": SingularTaskFailure, "value": ValueError}[kind](kind)


def leave(code: Any) -> None:
    sys.exit(code)


@pytest.fixture(autouse=True)
def _at_a_fixed_time() -> Iterator[None]:
    calls.clear()
    with clock.replaced(lambda: NOW):
        yield


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def queue(store: MemoryStore) -> Iterator[MemoryTransport]:
    with in_memory(store=store, keys=["current", "previous"]) as transport:
        yield transport


def body_of(func: Any, *args: Any, **options: Any) -> bytes:
    """The body that a defer sends, with the queue emptied again."""
    defer(func, *args, **options)
    transport = config.current().the_transport
    assert isinstance(transport, MemoryTransport)
    message: Message = transport.queued()[-1].message
    transport.clear()
    return message.body


def dead(store: MemoryStore) -> list[Any]:
    return store.list(State.DEAD)


def test_a_task_runs_with_its_delivery(queue: MemoryTransport) -> None:
    assert execute(body_of(note, 1, _dispatch_deadline=30), DELIVERY) is Outcome.DONE
    [(args, delivery)] = calls
    assert args == (1,) and delivery == replace(DELIVERY, deadline=NOW + 30)
    assert current_delivery() is None


def test_a_singular_failure_is_retried_and_keeps_nothing(queue: MemoryTransport, store: MemoryStore) -> None:
    assert execute(body_of(fail, "singular"), DELIVERY) is Outcome.RETRY
    assert dead(store) == []


def test_any_other_exception_propagates(queue: MemoryTransport, store: MemoryStore) -> None:
    with pytest.raises(ValueError, match="value"):
        execute(body_of(fail, "value"), DELIVERY)
    assert dead(store) == []


@pytest.mark.parametrize("code", [3, 0, None, "a message"])
def test_a_task_that_exits_has_failed_and_the_server_goes_on(
    queue: MemoryTransport, store: MemoryStore, code: Any
) -> None:
    with pytest.raises(TaskExitedError, match=re.escape(repr(code))) as caught:
        execute(body_of(leave, code), DELIVERY)
    assert isinstance(caught.value.__cause__, SystemExit)
    [record] = store.list(State.FAILING)
    assert "SystemExit" in record.last_error


def test_the_exit_of_a_server_that_was_told_to_end_goes_through(queue: MemoryTransport, store: MemoryStore) -> None:
    body = body_of(leave, 143)
    with patch.object(stopping, "asked", [15]), pytest.raises(SystemExit):
        execute(body, DELIVERY)
    assert store.list(State.FAILING) == []


def test_a_permanent_failure_of_an_inline_task_is_a_new_dead_letter(queue: MemoryTransport, store: MemoryStore) -> None:
    body = body_of(fail, "permanent")
    [pending] = store.records
    assert execute(body, DELIVERY) is Outcome.PERMANENT
    [letter] = dead(store)
    assert letter.id != pending and letter.reason == "permanent" and letter.verified
    assert letter.routing.queue == "q" and letter.label.endswith(":fail")
    assert "PermanentTaskFailure: permanent" in letter.last_error and "in fail" in letter.last_error
    assert frame.wrap(letter.envelope) == body


def test_a_permanent_failure_of_a_claimed_task_makes_its_record_dead(
    queue: MemoryTransport, store: MemoryStore
) -> None:
    class_of_data = os.urandom(300_000)
    body = body_of(fail_with, class_of_data)
    [record] = store.records.values()
    [leased] = store.lease_due(now=NOW + 3600, limit=1, seconds=60)
    assert execute(body, DELIVERY) is Outcome.PERMANENT
    [letter] = dead(store)
    assert (letter.id, letter.payload, letter.reason) == (record.id, record.payload, "permanent")
    assert not store.mark(record.id, lease=leased.lease, state=State.SENT)


def fail_with(data: bytes) -> None:
    raise PermanentTaskFailure


def test_failures_of_the_sdk_are_known_by_name(queue: MemoryTransport, store: MemoryStore, monkeypatch: Any) -> None:
    sdk = ModuleType("google.appengine.ext.deferred.deferred")
    sdk.SingularTaskFailure = type("SingularTaskFailure", (Exception,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, sdk.__name__, sdk)
    monkeypatch.setitem(globals(), "sdk_failure", sdk.SingularTaskFailure)
    assert execute(body_of(raise_sdk_failure), DELIVERY) is Outcome.RETRY


def raise_sdk_failure() -> None:
    raise globals()["sdk_failure"]


def test_a_claimed_task_runs_whatever_its_records_state_and_then_deletes_it(
    queue: MemoryTransport, store: MemoryStore
) -> None:
    data = os.urandom(300_000)
    body = body_of(note, data)
    [record] = store.records.values()
    store.mark(record.id, lease="", state=State.DEAD)
    assert execute(body, DELIVERY) is Outcome.DONE
    assert calls[0][0] == (data,) and store.records == {}


@pytest.mark.parametrize("at", [0, 20, 150_000, -1])
@pytest.mark.parametrize("cut", [False, True], ids=["of the same length", "cut off"])
def test_a_payload_that_is_not_the_claimed_one_does_not_run(
    queue: MemoryTransport, store: MemoryStore, at: int, cut: bool
) -> None:
    body = body_of(note, os.urandom(300_000))
    [record] = store.records.values()
    assert record.payload is not None
    altered = bytearray(record.payload)
    altered[at] ^= 1
    store.mark(record.id, lease="", payload=record.payload[:at] if cut else bytes(altered))
    assert execute(body, DELIVERY) is Outcome.PERMANENT
    [letter] = dead(store)
    assert (letter.id, letter.reason, len(store.records)) == (record.id, "unreadable", 1)
    assert "not the one that the task was sent with" in letter.last_error
    assert calls == []


def test_a_claim_that_somebody_has_made_up_does_not_touch_the_record(
    queue: MemoryTransport, store: MemoryStore
) -> None:
    sealed = envelope.decode(frame.unwrap(body_of(note, os.urandom(300_000))), config.current().signer)
    [record] = store.records.values()
    assert sealed.claim_check is not None
    other = replace(sealed, claim_check=replace(sealed.claim_check, digest=b"x" * 32))
    assert execute(frame.wrap(envelope.encode(other, config.current().signer)), DELIVERY) is Outcome.PERMANENT
    assert store.get(record.id) == record


@pytest.mark.parametrize(
    ("age", "retry_count", "outcome", "letters"),
    [
        (10, 0, Outcome.RETRY, 0),
        (10, 5, Outcome.RETRY, 0),
        (4000, 5, Outcome.DONE, 0),
        (4000, None, Outcome.DONE, 0),
        (4000, 0, Outcome.DONE, 1),
    ],
)
def test_a_claim_without_its_record(
    queue: MemoryTransport, store: MemoryStore, age: float, retry_count: int | None, outcome: Outcome, letters: int
) -> None:
    body = body_of(note, os.urandom(300_000))
    store.delete(list(store.records))
    with clock.replaced(lambda: NOW + age):
        assert execute(body, replace(DELIVERY, retry_count=retry_count)) is outcome
    assert calls == [] and [each.reason for each in dead(store)] == ["missing payload"] * letters


def test_a_claim_on_a_store_that_is_not_configured_is_retried(queue: MemoryTransport) -> None:
    body = body_of(note, os.urandom(300_000))
    with config.configured(keys=["current"]):
        assert execute(body, DELIVERY) is Outcome.RETRY


# --- promise 8 and the signature rules --------------------------------------------------------------------------------


def unsigned(func: Any, *args: Any) -> bytes:
    with in_memory():
        return body_of(func, *args)


def signed_by(key: str, func: Any, *args: Any) -> bytes:
    with in_memory(keys=[key]):
        return body_of(func, *args)


@pytest.fixture
def _no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a body was decoded that was not verified")

    monkeypatch.setattr("defer_core.wire.decoder.unpack", refuse)
    monkeypatch.setattr("defer_core.wire.envelope._read", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)


@pytest.mark.usefixtures("_no_decoding")
def test_promise_8_with_keys_an_unsigned_task_is_kept_undecoded_and_never_run(
    queue: MemoryTransport, store: MemoryStore
) -> None:
    assert execute(unsigned(note), DELIVERY) is Outcome.PERMANENT
    [letter] = dead(store)
    assert (letter.reason, letter.verified, calls) == ("unverified", False, [])


@pytest.mark.usefixtures("_no_decoding")
def test_promise_8_a_changed_body_is_never_decoded(queue: MemoryTransport, store: MemoryStore) -> None:
    body = bytearray(signed_by("current", note))
    body[-8] ^= 1
    assert execute(bytes(body), DELIVERY) is Outcome.PERMANENT
    assert [each.reason for each in dead(store)] == ["unverified"]


def test_all_keys_verify(queue: MemoryTransport) -> None:
    assert execute(signed_by("previous", note), DELIVERY) is Outcome.DONE


@pytest.mark.usefixtures("_no_decoding")
@pytest.mark.parametrize(
    ("age", "eta", "outcome"),
    [(0, None, Outcome.RETRY), (3601, None, Outcome.PERMANENT), (7200, NOW + 7000, Outcome.RETRY)],
)
def test_a_task_of_an_unknown_key_has_a_grace(
    queue: MemoryTransport, store: MemoryStore, age: float, eta: float | None, outcome: Outcome
) -> None:
    body = signed_by("unknown", note)
    with clock.replaced(lambda: NOW + age):
        assert execute(body, replace(DELIVERY, eta=eta)) is outcome
    assert [each.verified for each in dead(store)] == [False] * (outcome is Outcome.PERMANENT)


def test_an_unknown_version_has_a_grace(queue: MemoryTransport) -> None:
    wire = bytearray(frame.unwrap(signed_by("current", note)))
    wire[1] = 99
    assert execute(frame.wrap(bytes(wire)), DELIVERY) is Outcome.RETRY
    with clock.replaced(lambda: NOW + 3601):
        assert execute(frame.wrap(bytes(wire)), DELIVERY) is Outcome.PERMANENT


def test_a_creation_time_in_the_future_buys_no_grace(queue: MemoryTransport) -> None:
    with clock.replaced(lambda: NOW + 10**6):
        body = signed_by("unknown", note)
    assert execute(body, DELIVERY) is Outcome.PERMANENT


def test_a_callable_that_does_not_resolve_has_a_grace(
    queue: MemoryTransport, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = body_of(note)
    monkeypatch.delitem(globals(), "note")
    assert execute(body, DELIVERY) is Outcome.RETRY
    with clock.replaced(lambda: NOW + 3601):
        assert execute(body, DELIVERY) is Outcome.PERMANENT
    assert [(each.reason, each.verified) for each in dead(store)] == [("unreadable", True)]


def test_an_authenticator_that_vouches_for_nobody_needs_a_signature(store: MemoryStore) -> None:
    authenticator = replace(DELIVERY, require_signature=True)
    with in_memory(store=store):
        assert execute(unsigned(note), DELIVERY) is Outcome.DONE
        assert execute(unsigned(note), authenticator) is Outcome.PERMANENT
    with in_memory(store=store, keys=["current"]):
        assert execute(signed_by("current", note), authenticator) is Outcome.DONE


@pytest.mark.parametrize("framed", [True, False])
def test_unverified_dead_letters_are_kept_in_a_capped_number(store: MemoryStore, framed: bool) -> None:
    body = unsigned(note) if framed else b"what no authenticator looks into"
    with in_memory(store=store, keys=["current"], max_unverified=3):
        for _ in range(5):
            assert execute(body, DELIVERY) is Outcome.PERMANENT
    assert [each.verified for each in dead(store)] == [False] * 3


@pytest.mark.parametrize(
    ("keys", "accepts", "authenticator_vouches", "verified"),
    [
        ([], False, True, True),
        ([], True, False, False),
        (["current"], False, True, False),
        (["current"], True, True, True),
        (["current"], True, False, False),
    ],
)
def test_for_a_body_of_another_library_its_authenticator_vouches_if_anybody(
    store: MemoryStore, keys: list[str], accepts: bool, authenticator_vouches: bool, verified: bool
) -> None:
    with in_memory(store=store, keys=keys, accept_legacy_pickles=accepts):
        execute(b"no pickle either", replace(DELIVERY, require_signature=not authenticator_vouches))
    assert [each.verified for each in dead(store)] == [verified]


def test_a_store_full_of_unverified_bodies_is_not_counted_for_each(store: MemoryStore, monkeypatch: Any) -> None:
    body, looks = unsigned(note), []
    count = store.count_unverified
    monkeypatch.setattr(store, "count_unverified", lambda: looks.append(1) or count())
    with in_memory(store=store, keys=["current"], max_unverified=0):
        for _ in range(5):
            execute(body, DELIVERY)
    assert len(looks) == 1


def test_an_expired_task_is_a_dead_letter(store: MemoryStore) -> None:
    with in_memory(store=store, expires_after=60):
        body = body_of(note)
        with clock.replaced(lambda: NOW + 60):
            assert execute(body, DELIVERY) is Outcome.DONE
        with clock.replaced(lambda: NOW + 61):
            assert execute(body, DELIVERY) is Outcome.PERMANENT
    assert [each.reason for each in dead(store)] == ["expired"]


# --- other bodies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"x", b"\x80", b"\x80\x03cdefer_core\nrun_envelope\nB", frame.wrap(b"")])
def test_what_is_no_task_is_a_dead_letter(queue: MemoryTransport, store: MemoryStore, body: bytes) -> None:
    assert execute(body, DELIVERY) is Outcome.PERMANENT
    assert len(dead(store)) == 1


def test_a_bare_process_runs_inline_tasks_unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    body = unsigned(note)
    monkeypatch.setattr(active, "_source", None)
    monkeypatch.setattr(active, "_explicit", None)
    monkeypatch.setattr(active, "_cached", config.Config())
    assert execute(body, DELIVERY) is Outcome.DONE
    assert execute(unsigned(fail, "permanent"), DELIVERY) is Outcome.PERMANENT


def test_the_envelope_is_read_once_verified(queue: MemoryTransport) -> None:
    sealed = envelope.decode(frame.unwrap(body_of(note, _dispatch_deadline=20)), config.current().signer)
    assert (sealed.created, sealed.deadline, sealed.claim_check) == (NOW, 20, None)
