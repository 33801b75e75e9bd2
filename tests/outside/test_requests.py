"""A task runs if its body has come whole, in whatever form a client or a proxy brings it to whatever server."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from outside.processes import PATIENCE, listens, wait_for
from outside.row import ROWS, Row
from outside.site import KEYS, note, ran

from defer_core import defer
from defer_core.record import State
from defer_core.stores.sqlite import SQLiteTaskStore
from defer_core.testing import in_memory
from defer_local import LocalTransport

CHUNKED = "Transfer-Encoding: chunked"
EXPECTING = "Expect: 100-continue"
FINAL_STATUS = re.compile(rb"^HTTP/\d\.\d ([2-5]\d\d)", re.MULTILINE)


def body_of(number: int, padding: str = "") -> bytes:
    """The body of a task for the site."""
    with in_memory(keys=KEYS) as queue:
        defer(note, number, padding, _small_task=True)
        [task] = queue.queued()
    return task.message.body


def in_chunks(body: bytes, size: int = 50, end: bytes = b"0\r\n\r\n") -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


def post(row: Row, *headers: str, body: bytes = b"", version: str = "1.1", cut: bool = False) -> int:
    """The status that the server answers to a request, after which (`cut`) the client closes; 0 where there is none."""
    transport = LocalTransport(file=row.folder / ".defer/queue.sqlite3")
    secret = transport.secret
    transport.close()
    lines = ["Host: 127.0.0.1", "Connection: close", f"X-Defer-Local-Secret: {secret}", *headers]
    head = f"POST /_ah/queue/deferred HTTP/{version}\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
    with socket.create_connection(("127.0.0.1", row.port), timeout=PATIENCE) as sock, suppress(ConnectionError):
        sock.sendall(head.encode())
        answer = b""
        if EXPECTING in headers:  # as curl does it: send it all the same after a while
            with suppress(TimeoutError):
                sock.settimeout(1.0)
                answer = sock.recv(65536)
            sock.settimeout(PATIENCE)
        with suppress(OSError):  # a server may refuse what it has not read
            sock.sendall(body)
            if cut:
                sock.shutdown(socket.SHUT_WR)
        while not (status := FINAL_STATUS.search(answer)) and (part := sock.recv(65536)):
            answer += part
        return int(status[1]) if status else 0
    return 0


def dead(row: Row) -> int:
    store = SQLiteTaskStore(file=row.folder / ".defer/store.sqlite3")
    try:
        return len(store.list(State.DEAD))
    finally:
        store.close()


def table(test: object) -> object:
    return pytest.mark.parametrize("row", ROWS, indirect=True, scope="module")(test)


LENGTH = "Content-Length: {length}"
WHOLE: dict[str, tuple[tuple[str, ...], Callable[[bytes], bytes]]] = {
    "length": ((LENGTH,), bytes),
    "length, expecting": ((LENGTH, EXPECTING), bytes),
    "chunks": ((CHUNKED,), partial(in_chunks, size=1000)),
    "one chunk": ((CHUNKED,), partial(in_chunks, size=100_000)),
    "small chunks": ((CHUNKED,), partial(in_chunks, size=1)),
    "chunks, expecting": ((CHUNKED, EXPECTING), in_chunks),
    "chunks, trailers": ((CHUNKED,), partial(in_chunks, end=b"0\r\nX-Sum: 5\r\n\r\n")),
}


@pytest.mark.parametrize("form", WHOLE)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@table
def test_a_whole_body_runs(row: Row, form: str, version: str) -> None:
    number = next(row.numbers)
    body = body_of(number, "x" * 3000)
    headers, formed = WHOLE[form]
    status = post(row, *(each.format(length=len(body)) for each in headers), body=formed(body), version=version)
    assert (status == 200) is (number in ran(row.folder)), row.process.output()
    assert dead(row) == 0
    if LENGTH in headers or (row.server.reads_chunks and version == "1.1" and form != "chunks, trailers"):
        assert status == 200
    else:  # HTTP/1.0 has no chunks, and not every server knows trailers
        assert status in (0, 200, 400, 411, 501, 505)


@table
def test_a_body_that_does_not_come_whole_runs_nothing(row: Row) -> None:
    number = next(row.numbers)
    body = body_of(number, "x" * 3000)
    cut = {post(row, f"Content-Length: {len(body)}", body=body[:end], cut=True) for end in (0, 1, 500, len(body) - 1)}
    chunks = in_chunks(body, 1000)  # of which the last byte of the body is the eighth from the end
    cut |= {post(row, CHUNKED, body=chunks[:end], cut=True) for end in (0, 1, 500, 1007, 2100, len(chunks) - 8)}
    cut |= {post(row, CHUNKED, body=chunks[:2020] + b"no chunk\r\n", cut=True)}
    missing = {
        post(row, "Content-Length: 0"),
        post(row),
        post(row, CHUNKED, body=b"0\r\n\r\n"),
    }
    whole = next(row.numbers)
    body = body_of(whole)
    wait_for(lambda: post(row, f"Content-Length: {len(body)}", body=body) == 200, "an answer", row.process)
    assert not [status for status in cut | missing if 200 <= status < 300], row.process.output()
    assert missing <= {400, 411, 501}
    time.sleep(0.2)
    assert whole in ran(row.folder) and number not in ran(row.folder)
    assert dead(row) == 0 and listens(row.port)


@table
def test_a_body_in_chunks_that_is_too_large_runs_nothing(row: Row) -> None:
    number = next(row.numbers)
    body = body_of(number) + bytes(1_200_000)
    status = post(row, CHUNKED, body=in_chunks(body, 60_000))
    assert status in ((413, 0) if row.server.reads_chunks else (400, 411, 501, 0)), row.process.output()
    assert number not in ran(row.folder) and dead(row) == 0
