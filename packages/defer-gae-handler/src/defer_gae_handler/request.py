"""One HTTP request and its answer, whatever the framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any


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
        return f"Headers({self._given!r})"


class EnvironHeaders(Mapping[str, str]):
    """The headers of a WSGI environ (or of Django's `request.META`), read where they are."""

    __slots__ = ("_environ",)

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        value: str = self._environ[_key(name)]
        return value

    def get(self, name: str, default: Any = None) -> Any:
        return self._environ.get(_key(name), default)

    def several(self, names: tuple[str, ...]) -> list[str | None]:
        """The values of these headers, None for each that is missing."""
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
    """`X-A` → `HTTP_X_A`, remembered: a handler asks for the same dozen names again and again."""
    key = name.upper().replace("-", "_")
    return key if key in _BARE else f"HTTP_{key}"


@lru_cache(maxsize=16)
def _keys_of(names: tuple[str, ...]) -> list[str]:
    return [*map(_key, names)]


def values(headers: Mapping[str, str], names: tuple[str, ...]) -> list[str | None]:
    """The values of several headers, None for each that is missing."""
    if type(headers) is EnvironHeaders:
        return headers.several(names)
    return [headers.get(name) for name in names]


def _no_body(size: int = -1) -> bytes:
    return b""


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
    """The address of the peer, as the server sees it; empty where it does not."""
    read: Callable[..., bytes] = _no_body
    """`read(n)` returns the body, or up to n bytes of it; a `read()` that returns all of it will do. It is called only
    once a door is open and the length fits."""

    def __post_init__(self) -> None:
        if not isinstance(self.headers, _CASELESS):
            object.__setattr__(self, "headers", Headers(self.headers))


@dataclass(frozen=True)
class Response:
    """The answer to a request. Its fields may be given in this order, too."""

    status: int
    """The HTTP status."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Its headers; names compare without regard to case."""
    body: bytes = b""
    """A word for people; queues look at the status alone."""

    def __post_init__(self) -> None:
        if not isinstance(self.headers, Headers):
            object.__setattr__(self, "headers", Headers(self.headers))

    @cached_property
    def wsgi_headers(self) -> list[tuple[str, str]]:
        """The headers, and the length, as WSGI wants them; a server may change a copy."""
        return [*self.headers.items(), ("Content-Length", str(len(self.body)))]
