"""One JSON document over HTTP, with one time limit for all of it: names, connections, headers and body."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.request
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.error import HTTPError

MAX_SIZE = 1_000_000
"""Bytes of an answer that are read at most."""
LIFETIME = (60.0, 3600.0, 86400.0)
"""Seconds that an answer is kept: at least, by default, at most."""
_CHUNK = 65_536


class Fetch(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Fetches in a thread, because a socket's timeout starts anew with each byte; shutting the connections ends it."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__()
        self._url, self._timeout = url, timeout
        self._until = time.monotonic() + timeout
        self._connections: list[HTTPConnection] = []
        self._result: tuple[Any, float] | Exception = TimeoutError(f"no whole answer within {timeout:g} s")

    def result(self) -> tuple[Any, float]:
        """Return the document, and for how many seconds it may be kept. Raises any error, and TimeoutError."""
        thread = threading.Thread(target=self._run, name="defer-certificates", daemon=True)
        thread.start()
        thread.join(self._timeout)
        result = self._result
        if thread.is_alive():
            self._abort()
        if isinstance(result, Exception):
            raise result
        return result

    def _run(self) -> None:
        try:
            self._result = self._fetched()
        except Exception as error:
            if isinstance(error, HTTPError):
                error.close()
            self._result = error

    def _fetched(self) -> tuple[Any, float]:
        with urllib.request.build_opener(self).open(self._url, timeout=self._timeout) as answer:
            max_age = re.search(r"max-age=(\d+)", answer.headers.get("Cache-Control") or "")
            content = b""
            while (chunk := answer.read1(_CHUNK)) and len(content) < MAX_SIZE:
                content += chunk
                if time.monotonic() > self._until:
                    raise TimeoutError("the answer takes too long")
        least, lifetime, most = LIFETIME
        if max_age:
            lifetime = min(max(float(max_age[1]), least), most)
        return json.loads(content), lifetime

    def _abort(self) -> None:
        """Shut the connections that the thread still waits for."""
        for connection in self._connections:
            with suppress(OSError, AttributeError):  # the connection may be closed by now
                connection.sock.shutdown(socket.SHUT_RDWR)

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(self._connect, HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(self._connect, HTTPSConnection), req)

    def _connect(self, kind: type[HTTPConnection], host: str, **options: Any) -> HTTPConnection:
        connection = kind(host, **options)
        self._connections.append(connection)
        return connection
