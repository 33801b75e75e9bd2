"""Packers that are reused, because they are expensive to make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_BUFFER = 1024 * 1024
"""Bytes up to which a packer's buffer is kept for the next call."""


class Pool(Generic[T]):
    """Idle objects, each used by one caller at a time: a thread, a greenlet, an `encode` that defers."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._idle: list[T] = []

    def take(self) -> T:
        """Return an object that nothing else uses."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._make()

    def give_back(self, used: T, size: int) -> None:
        """Make an object available again that has packed `size` bytes, unless its buffer has grown too large. (After an
        exception it must not be given back.)"""
        if size <= MAX_BUFFER:
            self._idle.append(used)
