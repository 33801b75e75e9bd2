"""A connection for one HTTP request, all of it within one deadline."""

from __future__ import annotations

import functools
import http.client
import socket
import ssl
import time
from contextlib import suppress

PORTS = {"http": http.client.HTTP_PORT, "https": http.client.HTTPS_PORT}
"""The default ports, by scheme."""


class Connection(http.client.HTTPConnection):
    """Sends one request, and receives. Every wait ends in TimeoutError once time.monotonic() has reached `until`."""

    def __init__(self, scheme: str, host: str, port: int, until: float) -> None:
        self.default_port = PORTS[scheme]  # so that the header Host omits it
        super().__init__(host, port)
        self._scheme = scheme
        self._until = until

    def connect(self) -> None:
        """Connect. Raises ConnectionRefusedError if no server listens, and OSError for other failures."""
        self.sock = self._connected()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._scheme == "https":
            self.sock = trust().wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock.settimeout(self._left())
            self.sock.do_handshake()

    def send(self, data: object) -> None:
        """Send as much as the server reads: it may close once it has read enough for its answer."""
        left = memoryview(data)  # type: ignore[arg-type]
        with suppress(BrokenPipeError, ConnectionResetError):
            while left:
                self.sock.settimeout(self._left())
                left = left[self.sock.send(left) :]

    def receive(self, size: int) -> bytes:
        """Receive up to `size` bytes, and none once the server has closed."""
        self.sock.settimeout(self._left())
        return self.sock.recv(size)

    def _connected(self) -> socket.socket:
        """Connect to the first address that accepts. A refusal says more than other errors, so it is raised first."""
        failures: list[OSError] = []
        for family, kind, protocol, _, where in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(self._left())
                sock.connect(where)
                return sock
            except OSError as error:
                sock.close()
                failures.append(error)
        raise next((each for each in failures if isinstance(each, ConnectionRefusedError)), failures[-1])

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@functools.cache
def trust() -> ssl.SSLContext:
    """Make the TLS context, which trusts what the machine trusts."""
    return ssl.create_default_context()
