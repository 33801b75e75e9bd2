"""Hostile requests: whatever headers, environ and body say, the answer is one of the defined ones."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.gae_handler.conftest import Poster
from unit.gae_handler.handled import QUEUE, body_of, calls, note

from defer_core import defer
from defer_core.spi import State, current
from defer_core.testing import configured, in_memory
from defer_gae_handler import Request, handle, make_application

DEFINED = {200, 400, 403, 405, 408, 413}
NAMES = [
    "Content-Length",
    "Authorization",
    "X-AppEngine-QueueName",
    "X-AppEngine-TaskName",
    "X-AppEngine-TaskRetryCount",
    "X-AppEngine-TaskETA",
    "X-AppEngine-User-IP",
    "X-AppEngine-Cron",
    "X-CloudTasks-TaskName",
    "X-Defer-Local-Secret",
    "X-Forwarded-For",
]
VALUES = st.one_of(
    st.text(max_size=40), st.integers().map(str), st.floats().map(str), st.just("0.1.0.2"), st.just("true")
)
METHODS = st.sampled_from(["POST", "POST", "POST", "GET", "HEAD", "", "post", "É"])
FUZZ = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SIGNED = {"authenticators": ["appengine", "cloud-run-iam"], "keys": ["k" * 20]}


@FUZZ
@given(
    method=METHODS,
    path=st.text(max_size=30),
    headers=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=20), VALUES, max_size=8),
    address=st.text(max_size=20) | st.ip_addresses().map(str),
    body=st.binary(max_size=200),
)
def test_any_request_gets_a_defined_answer(
    app_engine: None, method: str, path: str, headers: dict[str, str], address: str, body: bytes
) -> None:
    stream = io.BytesIO(body)
    with in_memory(**SIGNED):
        request = Request(method=method, path=path, headers=headers, remote_addr=address, read=stream.read)
        assert handle(request).status in DEFINED
    assert calls == []


@FUZZ
@given(
    environ=st.dictionaries(st.sampled_from([f"HTTP_{name.upper().replace('-', '_')}" for name in NAMES]), VALUES),
    length=VALUES,
    method=METHODS,
    body=st.binary(max_size=200),
)
def test_any_environ_gets_a_defined_answer(
    app_engine: None, environ: dict[str, Any], length: str, method: str, body: bytes
) -> None:
    said: list[str] = []
    given = {"REQUEST_METHOD": method, "PATH_INFO": "/_ah/queue/deferred", "wsgi.input": io.BytesIO(body)}
    with in_memory(**SIGNED):
        make_application()({**given, "CONTENT_LENGTH": length, **environ}, lambda status, headers: said.append(status))
    assert int(said[0][:3]) in DEFINED
    assert calls == []


@pytest.mark.defer_real
@pytest.mark.usefixtures("app_engine")
def test_without_any_configuration_inline_tasks_run_and_claims_wait(
    post: Poster, caplog: pytest.LogCaptureFixture
) -> None:
    with in_memory(inline_limit=1024) as queue:
        defer(note, 1)
        inline = body_of(queue)
        queue.clear()
        defer(note, [str(number * 7919) for number in range(900)])
        claim = body_of(queue)
    with configured():
        assert handle(post(inline)).status == 200
        assert calls == [(1,)]
        assert handle(post(claim, headers=QUEUE)).status == 408
    assert "memory" in caplog.text and "not configured" in caplog.text


@pytest.mark.parametrize("accept_legacy_pickles", [False, True])
def test_junk_that_came_through_an_authenticator_is_kept_in_a_capped_number(
    post: Poster, accept_legacy_pickles: bool
) -> None:
    settings = {"authenticators": ["cloud-run-iam"], "keys": ["k" * 20], "accept_legacy_pickles": accept_legacy_pickles}
    headers = {"Authorization": "Bearer a.b.SIGNATURE_REMOVED_BY_GOOGLE"}
    with in_memory(max_unverified=5, **settings) as queue:
        defer(note)
        body = body_of(queue)
        for number in range(20):
            junk = [
                b"junk %d" % number,
                body[: -number or -1],
                body + bytes(number + 1),
                body[:40] + b"x" * number,
            ]
            assert {handle(post(each, headers=headers)).status for each in junk} <= {200, 408}
        store = current().the_store
        assert store is not None
        dead = store.list(State.DEAD)
    assert (len(dead), any(record.verified for record in dead)) == (5, False)
    assert calls == []
