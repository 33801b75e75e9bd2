"""One HTTP request and its answer, in any framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any, Self

from defer_core.spi import fast_init


class Headers(Mapping[str, str]):
    """HTTP headers, whose names compare without regard to case."""

    __slots__ = ("_given", "_values")

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = dict(given)
        self._values = {name.lower(): value for name, value in self._given.items()}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __repr__(self) -> str:
        return f"Headers({', '.join(self._given)})"  # not the values, which may be tokens


class EnvironHeaders(Mapping[str, str]):
    """The headers of a WSGI environ (or of Django's `request.META`), without a copy."""

    __slots__ = ("_environ",)

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        value: str = self._environ[_key(name)]
        return value

    def get(self, name: str, default: Any = None) -> Any:
        return self._environ.get(_key(name), default)

    def several(self, names: tuple[str, ...]) -> list[str | None]:
        """Return the values of these headers, None for a missing one."""
        return list(map(self._environ.get, _keys_of(names)))

    def __iter__(self) -> Iterator[str]:
        for key in self._environ:
            name = key.removeprefix("HTTP_")
            if name != key or key in _BARE:
                yield name.replace("_", "-").title()

    def __len__(self) -> int:
        return sum(1 for _ in self)


_CASELESS = (Headers, EnvironHeaders)
_BARE = frozenset({"CONTENT_TYPE", "CONTENT_LENGTH"})


@lru_cache(maxsize=256)
def _key(name: str) -> str:
    """Translate `X-A` to `HTTP_X_A`; cached, because a handler needs the same dozen names for each request."""
    key = name.upper().replace("-", "_")
    return key if key in _BARE else f"HTTP_{key}"


@lru_cache(maxsize=16)
def _keys_of(names: tuple[str, ...]) -> list[str]:
    return [*map(_key, names)]


def values(headers: Mapping[str, str], names: tuple[str, ...]) -> list[str | None]:
    """Return the values of several headers, None for a missing one."""
    if type(headers) is EnvironHeaders:
        return headers.several(names)
    return [headers.get(name) for name in names]


def body_of(environ: Mapping[str, Any]) -> Callable[[int], bytes]:
    """Return `read` for the body of a WSGI environ, if its length is given or the server marks its end."""
    asgi_marks_ends = "asgi.scope"  # of a2wsgi
    if environ.get("CONTENT_LENGTH") or environ.get("wsgi.input_terminated") or asgi_marks_ends in environ:
        return partial(read_whole, environ["wsgi.input"].read)
    return _no_body


def read_whole(read: Callable[[int], bytes], size: int) -> bytes:
    """Read `size` bytes, or up to the end: a stream may give less at a time."""
    body = read(size)
    while 0 < len(body) < size and (more := read(size - len(body))):
        body += more
    return body


def _no_body(size: int = -1) -> bytes:
    return b""


@fast_init
@dataclass(frozen=True)
class Request:
    """One request. Its fields may be given in this order, too."""

    method: str
    """The HTTP method, in capitals."""
    path: str = "/"
    """The path, without the query."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Its headers; any mapping will do, names compare without regard to case."""
    remote_addr: str = ""
    """The address of the peer, as the server sees it; empty if it does not."""
    read: Callable[..., bytes] = _no_body
    """`read(n)` returns the body, or up to n bytes of it; a `read()` that returns all of it will do. It is called only
    once an authenticator has accepted the request and the length fits."""

    def __post_init__(self) -> None:
        if not isinstance(self.headers, _CASELESS):
            object.__setattr__(self, "headers", Headers(self.headers))


TEXT = {"Content-Type": "text/plain; charset=utf-8"}
"""The header of every answer."""


@fast_init
@dataclass(frozen=True)
class Response:
    """The answer to a request. Its fields may be given in this order, too."""

    status: int
    """The HTTP status."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Its headers; names compare without regard to case."""
    body: bytes = b""
    """For people; queues read the status alone."""

    def __post_init__(self) -> None:
        if not isinstance(self.headers, Headers):
            object.__setattr__(self, "headers", Headers(self.headers))

    @classmethod
    def text(cls, status: int, text: str, **headers: str) -> Self:
        """Make an answer in plain text."""
        return cls(status=status, headers={**TEXT, **headers}, body=text.encode())

    @cached_property
    def wsgi_headers(self) -> list[tuple[str, str]]:
        """The headers and the length in WSGI's form; give servers a copy, they may change it."""
        return [*self.headers.items(), ("Content-Length", str(len(self.body)))]
