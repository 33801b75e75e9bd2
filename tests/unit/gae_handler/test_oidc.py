"""The OIDC authenticator, with tokens that are signed here and a certificate server on loopback."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import services
from unit.gae_handler.conftest import Poster
from unit.gae_handler.handled import body_of, calls, note, note_delivery

from defer_core import ConfigError, defer
from defer_core.spi import clock, current
from defer_core.testing import in_memory
from defer_gae_handler import handle
from defer_gae_handler.authenticators import configured_authenticators
from defer_gae_handler.authenticators.certificates import Certificates

jwt = services.library("jwt")
rsa = services.library("cryptography.hazmat.primitives.asymmetric.rsa")

AUDIENCE = "https://shop.example/_ah/queue/deferred"
EMAIL = "tasks@shop.iam.gserviceaccount.com"


@cache
def private_key(name: str) -> Any:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def token(key: str = "k1", *, headers: dict[str, Any] | None = None, alg: str = "RS256", **claims: Any) -> str:
    now = time.time()
    given = {
        "iss": "https://accounts.google.com",
        "aud": AUDIENCE,
        "email": EMAIL,
        "email_verified": True,
        "iat": now - 5,
        "exp": now + 3600,
        **claims,
    }
    given = {name: value for name, value in given.items() if value is not None}
    secret = private_key(key) if alg == "RS256" else {"none": None}.get(alg, "k" * 64)
    return str(jwt.encode(given, secret, algorithm=alg, headers={"kid": key, **(headers or {})}))


def jwks(*names: str) -> dict[str, Any]:
    keys = [json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private_key(name).public_key())) for name in names]
    return {"keys": [{**key, "kid": name, "use": "sig", "alg": "RS256"} for key, name in zip(keys, names, strict=True)]}


def pem(name: str) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return str(private_key(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def certificate(name: str) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    key, subject = private_key(name), x509.Name([])
    now = datetime.now(timezone.utc)
    built = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + timedelta(days=1))
    return str(built.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode())


class CertificateServer:
    """Answers with `content` (bytes or what becomes JSON), counts, and can be told to fail."""

    def __init__(self) -> None:
        self.content: Any = jwks("k1")
        self.cache_control: str | None = "public, max-age=3600, must-revalidate"
        self.status = 200
        self.asked = 0
        outer = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                data = outer.content if isinstance(outer.content, bytes) else json.dumps(outer.content).encode()
                self.send_response(outer.status)
                if outer.cache_control:
                    self.send_header("Cache-Control", outer.cache_control)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}/certs"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[CertificateServer]:
    served = CertificateServer()
    yield served
    served.stop()


@pytest.fixture
def ask(server: CertificateServer, post: Poster) -> Iterator[Callable[..., int]]:
    """The status that a task with this token is answered with."""
    options = {"audience": [AUDIENCE, "https://old.example"], "email": EMAIL, "certs_url": server.url}
    with in_memory(authenticators=["oidc"], authenticator_options={"oidc": options}) as queue:
        defer(note)
        body = body_of(queue)

        def asked(bearer: str | None, **headers: str) -> int:
            shown = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
            before = len(calls)
            status = handle(post(body, headers={**shown, **headers}, remote_addr="8.8.8.8")).status
            assert len(calls) - before == (status == 200)
            return status

        yield asked


Ask = Callable[..., int]


def test_a_token_of_ours_is_accepted(ask: Ask, server: CertificateServer) -> None:
    assert ask(token()) == 200
    assert ask(token(aud="https://old.example")) == 200
    assert ask(token(iss="accounts.google.com")) == 200
    assert server.asked == 1


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://other.example"},
        {"aud": AUDIENCE + "/"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"email": "someone@else.iam.gserviceaccount.com"},
        {"email": None},
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
        {"exp": 1_700_000_000},
        {"exp": None},
        {"iat": None},
        {"aud": {"x": 1}},
        {"email": [EMAIL]},
    ],
    ids=str,
)
def test_any_other_claim_is_refused(ask: Ask, claims: dict[str, Any]) -> None:
    assert ask(token(**claims)) == 403


@pytest.mark.parametrize(
    ("bearer", "why"),
    [
        (lambda: None, "no token"),
        (
            lambda: token(aud="https://other.example"),
            "wrong audience ('https://other.example', expected 'https://shop.exam",
        ),
        (lambda: token(email="other@x.example"), "wrong e-mail ('other@x.example', expected 'tasks@shop.iam"),
        (lambda: token(email_verified=False), "unverified e-mail (email_verified is False)"),
        (lambda: token(iss="https://evil.example"), "wrong issuer ('https://evil.example'"),
        (lambda: token(exp=1_700_000_000), "Signature has expired"),
        (lambda: token("k2", headers={"kid": "k1"}), "Signature verification failed"),
        (lambda: token("k2"), "unknown key ('k2')"),
        (lambda: token(alg="HS256"), "wrong signature (expected RS256"),
        (lambda: token(aud="x\n\x1bCRITICAL:root:forged" + "y" * 3000), r"wrong audience ('x\n\x1bCRITICAL"),
        (lambda: "." * 20_000, "token too long (20000 characters)"),
        (lambda: nested(5000), "invalid token ("),
    ],
)
def test_a_token_that_is_refused_is_told_of_and_not_told(
    ask: Ask, caplog: pytest.LogCaptureFixture, bearer: Callable[[], str | None], why: str
) -> None:
    given = bearer()
    assert ask(given) == 403
    [line] = [each for each in caplog.records if each.name == "defer.handler"]
    message = line.getMessage()
    assert line.levelname == "WARNING" and "oidc: " in message and why in message
    assert message.isprintable() and len(message) < 1500
    if given is not None and given.strip("."):
        assert not any(part in message for part in given.split(".") if len(part) > 4)


def test_the_answer_tells_a_stranger_neither_audience_nor_account(server: CertificateServer, post: Poster) -> None:
    options = {"audience": AUDIENCE, "email": EMAIL, "certs_url": server.url}
    refused = {"wrong audience": token(aud="https://other.example"), "wrong e-mail": token(email="other@x.example")}
    with in_memory(authenticators=["oidc"], authenticator_options={"oidc": options}):
        for why, given in refused.items():
            answer = handle(post(headers={"Authorization": f"Bearer {given}"}, read=b"".join))
            assert answer.body == f"forbidden: no authenticator accepted the request (oidc: {why})".encode()


def nested(depth: int) -> str:
    """A token whose claims no parser follows to their end."""
    from base64 import urlsafe_b64encode

    parts = (b'{"alg": "RS256", "kid": "k1"}', b"[" * depth, b"signature")
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize("skew, status", [(30, 200), (120, 403)])
def test_clocks_may_differ_by_the_leeway(ask: Ask, skew: float, status: int) -> None:
    now = time.time()
    assert ask(token(exp=now - skew)) == status
    assert ask(token(iat=now + skew, exp=now + 3600)) == status
    assert ask(token(nbf=now + skew)) == status


@pytest.mark.parametrize("alg", ["none", "HS256"])
def test_other_algorithms_are_refused(ask: Ask, server: CertificateServer, alg: str) -> None:
    assert ask(token(alg=alg)) == 403
    assert server.asked == 0


def test_forgeries_are_refused(ask: Ask) -> None:
    good = token()
    head, claims, signature = good.split(".")
    assert ask(f"{head}.{claims}.{'A' * len(signature)}") == 403
    assert ask(f"{head}.{claims}.SIGNATURE_REMOVED_BY_GOOGLE") == 403
    other = token("k2", headers={"kid": "k1"})
    assert ask(other) == 403
    for junk in (None, "x", "a.b.c", "é.é.é", "." * 20_000, good * 20):
        assert ask(junk) == 403


def test_nobody_makes_us_fetch_certificates_for_a_token_that_is_not_for_us(ask: Ask, server: CertificateServer) -> None:
    assert ask(token("stranger", aud="x")) == 403
    assert ask(token("stranger", email="x@y")) == 403
    assert server.asked == 0


def test_an_unreachable_certificate_server_is_answered_503(ask: Ask, server: CertificateServer) -> None:
    server.status = 500
    assert ask(token()) == 503
    server.status = 200
    for junk in (b"<html>", b"{}", b"[]", b'{"keys": []}', b'{"keys": [{"kid": "k1", "kty": "EC"}]}', b'{"k1": "PEM"}'):
        server.content = junk
        assert ask(token()) == 503
    server.content = jwks("k1")
    assert ask(token()) == 200


@pytest.mark.parametrize("junk", [b"[" * 200_000, b'{"keys": ' + b"[" * 200_000, b"\xff", b"9" * 5000, b'"x"', b"null"])
def test_an_answer_that_no_parser_takes_is_answered_503(ask: Ask, server: CertificateServer, junk: bytes) -> None:
    server.content = junk
    assert ask(token()) == 503


class Dripping:
    """A server that sends a byte of its answer every 50 ms, for ever: of its headers, or of its body."""

    def __init__(self, start: bytes) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/certs"
        self._start, self._over, self.left = start, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        peer, _ = self._socket.accept()
        with peer, suppress(OSError):
            peer.sendall(self._start)
            while not self._over.wait(0.05):
                peer.sendall(b" ")
        self.left.set()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()


@pytest.mark.parametrize("start", [b"HTTP/1.0 200 OK\r\nX-Slow: ", b"HTTP/1.0 200 OK\r\n\r\n{"])
def test_the_time_for_certificates_is_over_however_slowly_they_come(post: Poster, start: bytes) -> None:
    dripping = Dripping(start)
    options = {"audience": AUDIENCE, "email": EMAIL, "certs_url": dripping.url, "timeout": 0.5}
    with in_memory(authenticators=["oidc"], authenticator_options={"oidc": options}):
        began = time.monotonic()
        assert handle(post(headers={"Authorization": f"Bearer {token()}"})).status == 503
        assert time.monotonic() - began < 10
    assert dripping.left.wait(20)  # its connection was closed: no thread of ours is left behind
    dripping.stop()


def test_a_known_key_does_not_wait_for_others(server: CertificateServer) -> None:
    certificates = Certificates(server.url, timeout=5.0)
    assert certificates.key("k1") is not None
    with certificates._lock, ThreadPoolExecutor(1) as pool:  # somebody fetches
        assert pool.submit(certificates.key, "k1").result(timeout=20) is not None


def test_a_stopped_certificate_server_is_answered_503_until_the_keys_are_there(post: Poster) -> None:
    served = CertificateServer()
    served.stop()
    options = {"audience": AUDIENCE, "email": EMAIL, "certs_url": served.url}
    with in_memory(authenticators=["oidc"], authenticator_options={"oidc": options}):
        answer = handle(post(headers={"Authorization": f"Bearer {token()}"}, read=lambda *_: 1 / 0))
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_an_outage_is_not_noticed_while_the_keys_hold(
    ask: Ask, server: CertificateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.time()
    assert ask(token()) == 200
    server.status = 500
    assert ask(token()) == 200
    monkeypatch.setattr(clock, "now", lambda: start + 3500)
    assert ask(token()) == 200
    monkeypatch.setattr(clock, "now", lambda: start + 3700)
    assert ask(token()) == 503


def test_keys_rotate(ask: Ask, server: CertificateServer, monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.time()
    assert ask(token("k1")) == 200
    assert ask(token("k2")) == 403
    server.content = jwks("k1", "k2")
    assert ask(token("k2")) == 200
    assert ask(token("k1")) == 200
    server.content = jwks("k2")
    monkeypatch.setattr(clock, "now", lambda: start + 3700)
    assert ask(token("k1")) == 403


def test_made_up_keys_do_not_have_the_certificates_fetched_again_and_again(ask: Ask, server: CertificateServer) -> None:
    for number in range(20):
        assert ask(token("k2", headers={"kid": f"made-up-{number}"})) == 403
    assert server.asked <= 7
    assert ask(token("k1")) == 200


@pytest.mark.parametrize("form", [pem, certificate])
def test_the_other_form_of_certificates(ask: Ask, server: CertificateServer, form: Callable[[str], str]) -> None:
    server.content = {"k1": form("k1")}
    assert ask(token()) == 200


def test_the_attempt_is_read_from_the_headers_of_http_targets(server: CertificateServer, post: Poster) -> None:
    options = {"audience": AUDIENCE, "email": EMAIL, "certs_url": server.url}
    with in_memory(authenticators=["oidc"], authenticator_options={"oidc": options}) as queue:
        defer(note_delivery)
        headers = {
            "X-Serverless-Authorization": f"bearer {token()}",
            "X-CloudTasks-TaskName": "t-2",
            "X-CloudTasks-QueueName": "mail",
            "X-CloudTasks-TaskRetryCount": "4",
            "X-AppEngine-TaskRetryCount": "9",
        }
        assert handle(post(body_of(queue), headers=headers)).status == 200
    [delivery] = calls
    assert (delivery.task_name, delivery.queue, delivery.retry_count, delivery.target) == ("t-2", "mail", 4, "http")


@pytest.mark.parametrize(
    "options, names",
    [
        ({}, "audience"),
        ({"audience": "a"}, "email"),
        ({"email": "e"}, "audience"),
        ({"audiences": "a"}, "audiences"),
        ({"audience": [], "email": "e"}, "audience"),
        ({"audience": ["a", ""], "email": "e"}, "audience"),
        ({"audience": "a", "email": [5]}, "email"),
    ],
)
def test_what_is_missing_is_said_at_start_up(options: dict[str, Any], names: str) -> None:
    with (
        in_memory(authenticators=["oidc"], authenticator_options={"oidc": options}),
        pytest.raises(ConfigError, match=names),
    ):
        configured_authenticators(current())
