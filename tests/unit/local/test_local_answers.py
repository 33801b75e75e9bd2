"""What an answer over HTTP says of its task: a whole one its status, whatever its form; else why there is none."""

from __future__ import annotations

import datetime as dt
import logging
import re
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import takewhile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from defer_core import defer
from defer_core.spi import Message, RetryOptions, Routing
from defer_core.testing import in_memory
from defer_local import Dispatcher, LocalTransport, connection
from defer_local.answer import NoAnswerError
from defer_local.queued import QueuedTask
from defer_local.target import HttpTarget, ServerAbsentError

Script = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\n"
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n3;name=value\r\n!!!\r\n0\r\nTrailer: x\r\n\r\n"
LENGTH = OK + b"Content-Length: 4\r\nConnection: close\r\n\r\ndone"


class RawServer:
    """Reads each request whole, and lets `script` do the rest."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.script: Script = lambda sock: None
        self.requests: list[bytes] = []
        self.closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=[sock], daemon=True))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            request = request_of(sock)
            if request:
                self.requests.append(request)
                self.script(sock)

    def close(self) -> None:
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(30)


def request_of(sock: socket.socket) -> bytes:
    with sock.makefile("rb") as file:
        head = b"".join(takewhile(bytes.strip, iter(file.readline, None)))
        found = re.search(rb"(?i)content-length: (\d+)", head)
        return head and head + b"\r\n" + file.read(int(found[1]) if found else 0)


@pytest.fixture
def server() -> Iterator[RawServer]:
    server = RawServer()
    yield server
    server.close()


def answering(*parts: bytes, open_until: threading.Event | None = None) -> Script:
    """Send these parts, and close; or keep the connection open until an event."""

    def script(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            sock.sendall(part)
            time.sleep(0.002)  # so that it may come in a piece of its own
        if open_until is not None:
            open_until.wait(30)

    return script


def a_task(url: str = "/work", deadline: float = 30.0, **fields: object) -> QueuedTask:
    routing = Routing(url=url, dispatch_deadline=deadline)
    return QueuedTask(**({"queue": "mail", "name": "t", "routing": routing, "body": b"body"} | fields))  # type: ignore[arg-type]


def status_of(server: RawServer, deadline: float = 30.0, **fields: object) -> int:
    return HttpTarget(server.url).deliver(a_task(deadline=deadline, **fields), "s3cret")


# --- whole answers ----------------------------------------------------------------------------------------------------

FORMS = {
    "a length, closed": LENGTH,
    "a length of nothing": OK + b"Content-Length: 0\r\n\r\n",
    "a length said twice": OK + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\ndone",
    "HTTP/1.0, a length": b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\ndone",
    "chunked": CHUNKED,
    "chunked, no chunk": OK + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
    "chunked, and a length": OK
    + b"Content-Length: 99\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n",
    "chunked, without returns": b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n4\ndone\n0\n\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\ndone",
    "an early hint": HINT + LENGTH,
    "interim answers in one piece": CONTINUE + b"HTTP/1.1 102 Processing\r\n\r\n" + HINT + HINT + CHUNKED,
}
UNTIL_THE_END = {
    "until the end": OK + b"\r\ndone",
    "HTTP/1.0, until the end": b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\ndone",
    "nothing, until the end": OK + b"\r\n",
    "another coding, until the end": OK + b"Transfer-Encoding: gzip\r\n\r\ndone",
    "another coding, whatever the length": OK + b"Content-Length: 99\r\nTransfer-Encoding: gzip\r\n\r\ndone",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", [False, True], ids=["closed", "kept open"])
@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_an_answer_ends_where_it_says(server: RawServer, form: str, kept: bool, piece: int) -> None:
    data = FORMS[form]
    parts = [data[start : start + piece] for start in range(0, len(data), piece)]
    server.script = answering(*parts, open_until=server.closing if kept else None)
    assert 200 <= status_of(server) < 300


@pytest.mark.parametrize("form", UNTIL_THE_END)
def test_an_answer_that_does_not_say_ends_with_the_connection(server: RawServer, form: str) -> None:
    server.script = answering(UNTIL_THE_END[form])
    assert status_of(server) == 200


def test_a_server_that_has_not_read_the_request_resets_the_connection_at_the_end(server: RawServer) -> None:
    def answer_and_reset(sock: socket.socket) -> None:
        sock.sendall(OK + b"\r\ndone")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    server.script = answer_and_reset
    assert status_of(server) == 200


@pytest.mark.parametrize("status", [101, 201, 299, 301, 304, 307, 404, 429, 500, 503, 599, 999])
def test_any_status_is_that_status(server: RawServer, status: int) -> None:
    where = b"Location: %s/elsewhere\r\n" % server.url.encode()
    server.script = answering(b"HTTP/1.1 %d Text\r\n%s\r\n" % (status, where))
    assert status_of(server) == status
    assert len(server.requests) == 1, "a redirection is an answer, which is not followed"


def test_an_answer_to_head_has_no_body(server: RawServer) -> None:
    server.script = answering(OK + b"Content-Length: 4\r\n\r\n", open_until=server.closing)
    assert status_of(server, method="HEAD") == 200


def test_an_answer_that_is_given_before_the_request_was_read_counts(server: RawServer) -> None:
    early = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        sock, _ = early.accept()
        with sock:
            sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nlong")
            sock.shutdown(socket.SHUT_WR)
            time.sleep(0.2)

    thread = threading.Thread(target=refuse)
    thread.start()
    target = HttpTarget(f"http://127.0.0.1:{early.getsockname()[1]}")
    assert target.deliver(a_task(body=b"x" * 30_000_000), "s3cret") == 413
    thread.join(30)
    early.close()


def test_the_request_is_one_that_every_server_understands(server: RawServer) -> None:
    server.script = answering(LENGTH)
    assert status_of(server) == 200
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /work HTTP/1.1" and body == b"body"
    assert b"Host: 127.0.0.1:%d" % server.port in lines
    assert b"Content-Length: 4" in lines and b"Connection: close" in lines


# --- no answer --------------------------------------------------------------------------------------------------------

NO_END = {
    "a length": LENGTH,
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n",
    "a trailer": CHUNKED,
    "an early hint": HINT + LENGTH,
}


@pytest.mark.parametrize("form", NO_END)
def test_what_is_cut_off_anywhere_is_no_answer(server: RawServer, form: str) -> None:
    answer = NO_END[form]
    for end in range(len(answer)):
        server.script = answering(answer[:end])
        with pytest.raises(NoAnswerError, match="closed the connection"):
            status_of(server)
    server.script = answering(answer)
    assert status_of(server) == 200


def test_headers_that_are_cut_off_are_no_answer_that_ends_with_the_connection(server: RawServer) -> None:
    for cut in (OK, OK[:-2], OK + b"Server: x\r\n", OK + b"Server: x"):
        server.script = answering(cut)
        with pytest.raises(NoAnswerError, match="closed the connection within the head of its answer"):
            status_of(server)


@pytest.mark.parametrize(
    "garbled",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"<html>",
        OK + b"Content-Length: four\r\n\r\ndone",
        OK + b"Content-Length: -4\r\n\r\ndone",
        OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\ndone!",
        OK + b"Transfer-Encoding: chunked\r\n\r\nfour\r\ndone\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-4\r\ndone\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\ndone\r\n0\r\n\r\n",
        OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
        b"x" * 100_000,
    ],
)
def test_what_is_not_http_is_no_answer(server: RawServer, garbled: bytes) -> None:
    server.script = answering(garbled, open_until=server.closing if b"\n" in garbled or len(garbled) > 9999 else None)
    with pytest.raises(NoAnswerError, match=r"no HTTP|closed the connection") as raised:
        status_of(server)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_a_connection_that_is_reset_is_no_answer(server: RawServer) -> None:
    def reset(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    server.script = reset
    with pytest.raises(NoAnswerError, match="reset"):
        status_of(server)


def test_nobody_who_listens_is_told_apart() -> None:
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(ServerAbsentError, match=host):
            HttpTarget(f"http://{host}:1").deliver(a_task(), "s3cret")


@pytest.mark.parametrize("turn", [1, -1])
def test_a_refusal_at_one_address_says_more_than_a_fault_at_another(monkeypatch: pytest.MonkeyPatch, turn: int) -> None:
    stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    found = [(*stream, ("127.0.0.1", 1)), (*stream, ("255.255.255.255", 1))][::turn]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    with pytest.raises(ServerAbsentError):
        HttpTarget("http://shop.local:1").deliver(a_task(), "s3cret")


def test_a_host_that_is_unknown_is_no_answer() -> None:
    with pytest.raises(NoAnswerError, match=r"no-such-host\.invalid"):
        HttpTarget("http://no-such-host.invalid").deliver(a_task(), "s3cret")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/", "ftp://127.0.0.1/", "http:///x", "http://[::1/", "http://x:y/"]
)
def test_an_address_that_is_none_is_no_answer(url: str) -> None:
    with pytest.raises(NoAnswerError, match="is not a URL that tasks can be posted to"):
        HttpTarget("http://127.0.0.1:1").deliver(a_task(url), "s3cret")


def test_a_request_that_http_cannot_carry_is_no_answer(server: RawServer) -> None:
    for task in (a_task("/a b"), a_task("/caf\xe9\n"), a_task(server.url + "/\x7f")):
        with pytest.raises(NoAnswerError):
            HttpTarget(server.url).deliver(task, "s3cret")
    assert server.requests == []


# --- the deadline -----------------------------------------------------------------------------------------------------


def dripping(before: bytes, drop: bytes, closing: threading.Event) -> Script:
    def script(sock: socket.socket) -> None:
        sock.sendall(before)
        while not closing.wait(0.01):
            sock.sendall(drop)

    return script


DRIPS = {
    "nothing": (b"", b""),
    "the status line": (b"HTTP/1.1 200 ", b"O"),
    "headers": (OK, b"X: y\r\n"),
    "a header": (OK + b"X:", b"y"),
    "the body": (OK + b"\r\n", b"x"),
    "a long body": (OK + b"Content-Length: 999999999\r\n\r\n", b"x"),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n", b"x"),
    "a chunk's size": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    "interim answers": (b"", CONTINUE),
    "the headers of an interim answer": (b"HTTP/1.1 103 Early Hints\r\n", b"Link: </x>\r\n"),
}


@pytest.mark.parametrize("dripped", DRIPS)
def test_the_deadline_is_one_of_the_whole_answer(server: RawServer, dripped: str) -> None:
    before, drop = DRIPS[dripped]
    server.script = dripping(before, drop, server.closing)
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match="no complete answer within"):
        status_of(server, deadline=0.3)
    assert 0.3 <= time.monotonic() - began < 15


def test_connecting_is_within_the_deadline() -> None:
    with ExitStack() as opened:
        full = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(20):  # more than wait to be accepted; the kernel leaves the next without an answer
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        began = time.monotonic()
        with pytest.raises(NoAnswerError, match="cannot be reached: no complete answer within"):
            HttpTarget(f"http://127.0.0.1:{full.getsockname()[1]}").deliver(a_task(deadline=0.3), "s3cret")
        assert time.monotonic() - began < 15


LARGE = b"x" * 50_000_000


def test_sending_is_within_the_deadline(server: RawServer) -> None:
    deaf = socket.create_server(("127.0.0.1", 0))  # it accepts nothing, and reads nothing
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match="no complete answer within"):
        HttpTarget(f"http://127.0.0.1:{deaf.getsockname()[1]}").deliver(a_task(deadline=0.3, body=LARGE), "s3cret")
    assert time.monotonic() - began < 15
    deaf.close()


def test_an_endless_answer_takes_time_and_no_memory(server: RawServer) -> None:
    def flood(sock: socket.socket) -> None:
        sock.sendall(OK + b"\r\n")
        while True:
            sock.sendall(bytes(1 << 20))

    server.script = flood
    tracemalloc.start()
    with pytest.raises(NoAnswerError, match="no complete answer"):
        status_of(server, deadline=1.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """A context for a server `localhost` whom this process trusts."""
    certificate, key = a_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    connection.trust.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    yield context
    connection.trust.cache_clear()


def a_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(*plain))
    return files


def over_tls(server: RawServer, context: ssl.SSLContext, script: Script) -> None:
    serve, server.script = server._serve, script

    def secured(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            serve(context.wrap_socket(sock, server_side=True))

    server._serve = secured  # type: ignore[method-assign]


def silent(server: RawServer) -> Script:
    def script(sock: socket.socket) -> None:
        with sock:
            server.closing.wait(30)

    return script


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, OK + b"\r\ndone"])
def test_an_answer_over_tls_is_one(server: RawServer, tls: ssl.SSLContext, answer: bytes) -> None:
    over_tls(server, tls, answering(answer))
    target = HttpTarget(f"https://localhost:{server.port}")
    assert target.deliver(a_task(), "s3cret") == 200
    assert b"Host: localhost:%d" % server.port in server.requests[0]


def test_the_deadline_holds_over_tls(server: RawServer, tls: ssl.SSLContext) -> None:
    target = HttpTarget(f"https://localhost:{server.port}")
    over_tls(server, tls, dripping(OK, b"X: y\r\n", server.closing))
    with pytest.raises(NoAnswerError, match="no complete answer within"):
        target.deliver(a_task(deadline=0.5), "s3cret")
    server._serve = silent(server)  # type: ignore[method-assign]
    with pytest.raises(NoAnswerError, match="no complete answer within"):
        target.deliver(a_task(deadline=0.3), "s3cret")  # which the handshake takes


def test_a_server_that_is_not_trusted_gets_nothing(server: RawServer, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*a_certificate(tmp_path))
    over_tls(server, context, answering(LENGTH))
    with pytest.raises(NoAnswerError, match=r"cannot be reached: .*certificate"):
        HttpTarget(f"https://localhost:{server.port}").deliver(a_task(), "s3cret")
    assert server.requests == []


# --- what the dispatcher makes of it ----------------------------------------------------------------------------------


def run(folder: Path, server: RawServer, attempts: int, body: bytes = b"body") -> None:
    transport = LocalTransport(file=folder / "queue.sqlite3")
    retry = RetryOptions(max_attempts=attempts, min_backoff=0.01)
    transport.send(Message(body=body, routing=Routing(url="/work", name="t", queue="mail", retry=retry)))
    transport.close()
    Dispatcher(file=folder / "queue.sqlite3", target=server.url).run_until_idle()


def attempts(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged of attempts: the sender says besides that nobody delivers yet."""
    return [record for record in caplog.records if "attempt" in record.getMessage()]


def test_one_run_for_one_answer(server: RawServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "defer.local")
    server.script = answering(LENGTH)
    run(tmp_path, server, attempts=3)
    assert len(server.requests) == 1
    [line] = attempts(caplog)
    assert line.levelno == logging.INFO
    assert_reads(line.getMessage(), r"Task t in mail: attempt 1: 200 in \d+\.\d{3} s")


def test_what_a_task_calls_is_told(server: RawServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "defer.local")
    server.script = answering(LENGTH)
    with in_memory(keys=["k"]) as queue:
        defer(len, "x")
        [task] = queue.queued()
    run(tmp_path, server, attempts=1, body=task.message.body)
    assert_reads(attempts(caplog)[0].getMessage(), r"Task t \(builtins:len\) in mail: attempt 1: 200 in \d+\.\d{3} s")


def test_a_failure_is_told_with_its_status(server: RawServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.script = answering(LENGTH.replace(b"200 OK", b"500 No"))
    run(tmp_path, server, attempts=2)
    assert b"X-AppEngine-TaskPreviousResponse: 500" in server.requests[1]
    first, last = attempts(caplog)
    assert_reads(first.getMessage(), r"Task t in mail: attempt 1: 500 in \d+\.\d{3} s; again in 0\.0 s")
    assert_reads(last.getMessage(), r"Task t in mail: attempt 2: 500 in \d+\.\d{3} s; given up")
    assert (first.levelno, last.levelno) == (logging.WARNING, logging.ERROR)


def test_no_answer_is_told_with_its_reason(server: RawServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.script = answering(b"\x1b[31mred\r\n")
    run(tmp_path, server, attempts=1)
    [line] = attempts(caplog)
    expected = r"Task t in mail: attempt 1: no answer in \d+\.\d{3} s: the answer is no HTTP: .*red.*; given up"
    assert_reads(line.getMessage(), expected)
    assert line.getMessage().isprintable() and line.exc_info is None


def assert_reads(text: str, pattern: str) -> None:
    assert re.fullmatch(pattern, text), text
