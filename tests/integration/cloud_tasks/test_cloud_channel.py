"""One channel and one token a process: over TLS, with threads, and across a fork."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloud_server
import grpc
import pytest
import services
from cloud_server import CloudServer, serving

from defer_core.errors import TransportRefusedError, TransportUnavailableError
from defer_core.task import Routing
from defer_core.transports.base import Message
from defer_core.transports.cloud import channel
from defer_core.transports.cloud.transport import CloudTasksTransport

MESSAGE = Message(body=b"body", routing=Routing(url="/run"))


class FakeCredentials:
    """Google's, as far as they are used."""

    def __init__(self, *, seconds: float = 3600.0) -> None:
        self.seconds, self.refreshed = seconds, 0
        self.expiry: datetime.datetime | None = None
        self.token = ""

    @property
    def valid(self) -> bool:
        return bool(self.token)

    def refresh(self, request: Any) -> None:
        self.refreshed += 1
        self.token = f"token-{self.refreshed}"
        until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.seconds)
        self.expiry = until.replace(tzinfo=None)

    def apply(self, headers: dict[str, str]) -> None:
        headers["authorization"] = f"Bearer {self.token}"
        headers["x-goog-user-project"] = "billed"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A key and a certificate for `localhost`, signed by itself."""
    services.program("openssl", "A certificate for TLS")
    return cloud_server.certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(certificate: tuple[bytes, bytes]) -> Iterator[CloudServer]:
    with serving(credentials=grpc.ssl_server_credentials([certificate])) as running:
        yield running


def over_tls(server: CloudServer, certificate: tuple[bytes, bytes], credentials: Any) -> CloudTasksTransport:
    return CloudTasksTransport(
        project="p",
        location="l",
        endpoint=f"localhost:{server.port}",
        root_certificates=certificate[1],
        credentials=credentials,
    )


def test_one_token_serves_many_calls_over_tls(secure: CloudServer, certificate: tuple[bytes, bytes]) -> None:
    credentials = FakeCredentials()
    sender = over_tls(secure, certificate, credentials)
    for _ in range(3):
        sender.send(MESSAGE)
    assert credentials.refreshed == 1 and len(secure.tasks) == 3
    assert {each["authorization"] for each in secure.metadata} == {"Bearer token-1"}
    assert {each["x-goog-user-project"] for each in secure.metadata} == {"billed"}


def test_no_call_starts_a_thread(secure: CloudServer, certificate: tuple[bytes, bytes]) -> None:
    sender = over_tls(secure, certificate, FakeCredentials())
    sender.send(MESSAGE)
    started: list[Any] = []
    original = threading.Thread.start
    try:
        threading.Thread.start = lambda self: (started.append(self), original(self))[1]  # type: ignore[method-assign]
        for _ in range(20):
            sender.send(MESSAGE)
    finally:
        threading.Thread.start = original  # type: ignore[method-assign]
    client = [each for each in started if "ThreadPoolExecutor" not in each.name]  # those are the server's
    assert client == []


def test_a_token_is_replaced_before_it_ends(
    secure: CloudServer, certificate: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = FakeCredentials()
    sender = over_tls(secure, certificate, credentials)
    sender.send(MESSAGE)
    real = channel.time.time
    monkeypatch.setattr(channel.time, "time", lambda: real() + 3600 - channel.TOKEN_MARGIN + 1)
    sender.send(MESSAGE)
    assert [each["authorization"] for each in secure.metadata] == ["Bearer token-1", "Bearer token-2"]


def test_a_token_that_cannot_be_had_is_an_unavailable_queue(
    secure: CloudServer, certificate: tuple[bytes, bytes]
) -> None:
    from google.auth.exceptions import RefreshError

    class Broken(FakeCredentials):
        def refresh(self, request: Any) -> None:
            raise RefreshError("metadata server is down")

    sender = over_tls(secure, certificate, Broken())
    with pytest.raises(TransportUnavailableError, match="metadata server"):
        sender.send(MESSAGE)
    answers = sender.send_many([MESSAGE] * 3)
    assert [type(answer) for answer in answers] == [TransportUnavailableError] * 3
    assert secure.calls == []


def test_the_credentials_of_the_process_are_taken_where_none_are_given(
    secure: CloudServer, certificate: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import google.auth

    monkeypatch.setattr(google.auth, "default", lambda **options: (FakeCredentials(), "p"))
    over_tls(secure, certificate, None).send(MESSAGE)
    assert secure.metadata[0]["authorization"] == "Bearer token-1"


def test_no_credentials_say_what_to_do(
    secure: CloudServer, certificate: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    def none(**options: Any) -> None:
        raise DefaultCredentialsError("none found")

    monkeypatch.setattr(google.auth, "default", none)
    with pytest.raises(TransportRefusedError, match="application-default login"):
        over_tls(secure, certificate, None).send(MESSAGE)


FORKING = """
import os, sys
from defer_core.task import Routing
from defer_core.transports.base import Message
from defer_core.transports.cloud.transport import CloudTasksTransport

sender = CloudTasksTransport(project="p", location="l", emulator_host=sys.argv[1])
message = Message(body=b"body", routing=Routing(url="/run"))
sender.send(message)
parents = sender.connection()
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        sender.send(message)
        sender.send_many([message] * 5)
        os._exit(9 if sender.connection() is parents else 0)
    children.append(child)
sender.send(message)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
sender.send(message)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")
def test_a_fork_makes_a_channel_of_its_own(server: CloudServer, tmp_path: Path) -> None:
    script = tmp_path / "forking.py"
    script.write_text(FORKING)
    command = [sys.executable, "-W", "ignore", str(script), f"127.0.0.1:{server.port}"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert len(server.tasks) == 3 + 3 * 6
