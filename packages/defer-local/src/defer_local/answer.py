"""The answer to one HTTP request, read to its end: an incomplete one does not tell whether the task ran."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from defer_core.spi import one_line

_PIECE = 65536
"""Bytes received at a time, and the longest line: no more of an answer is kept in memory."""
_STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})(?: .*)?")
_LENGTH = re.compile(rb"\d{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?")
_SWITCHING_PROTOCOLS = 101
_BODILESS = frozenset({_SWITCHING_PROTOCOLS, 204, 304})


class NoAnswerError(Exception):
    """No complete answer came, and the task may have run or not. The text is the reason, in one line."""


def read_answer(receive: Callable[[int], bytes], method: str) -> int:
    """Read the answer to a request of `method` to its end and return its status.

    Interim answers (100, 102, 103) are skipped. `receive(n)` returns up to n bytes, and none once the server has
    closed. Raises NoAnswerError if the answer is truncated or is no HTTP, and any error of `receive`.
    """
    incoming = _Incoming(receive)
    while True:
        status = incoming.status()
        coding, length = incoming.framing()
        if status >= 200 or status == _SWITCHING_PROTOCOLS:
            break
    if method != "HEAD" and status not in _BODILESS:
        incoming.skip_body(coding, length)
    return status


class _Incoming:
    """The incoming bytes, of which only the unread ones are kept."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._unread = bytearray()

    def status(self) -> int:
        line = self._line("head", first=True)
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            raise _garbled(line)
        return int(found[1])

    def framing(self) -> tuple[bytes, bytes]:
        """Read the headers. Return the last transfer coding and the length, each b"" if there is none."""
        coding = length = b""
        while line := self._line("head"):
            name, _, value = line.partition(b":")
            name, values = name.rstrip().lower(), [each.strip() for each in value.split(b",")]
            if name == b"transfer-encoding":
                coding = values[-1].lower()
            elif name == b"content-length":
                if {*values} - {length or values[0]} or not _LENGTH.fullmatch(values[0]):
                    raise _garbled(line)
                length = values[0]
        return coding, length

    def skip_body(self, coding: bytes, length: bytes) -> None:
        if coding == b"chunked":
            while size := self._chunk_size():
                self._skip(size)
                if line := self._line("body"):  # nothing follows a chunk in its line
                    raise _garbled(line)
            while self._line("body"):
                pass
        elif length and not coding:
            self._skip(int(length))
        else:
            with suppress(ConnectionResetError):  # from a server that closes before it has read the whole request
                while self._receive(_PIECE):
                    pass

    def _chunk_size(self) -> int:
        line = self._line("body")
        found = _CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise _garbled(line)
        return int(found[1], 16)

    def _line(self, part: str, *, first: bool = False) -> bytes:
        """Read a line, without its end."""
        while (end := self._unread.find(b"\n", 0, _PIECE)) < 0:
            if len(self._unread) >= _PIECE:
                raise _garbled(self._unread)
            if not self._more():
                raise self._cut_off(part, first=first)
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return line.removesuffix(b"\r")

    def _skip(self, size: int) -> None:
        while size > len(self._unread):
            size -= len(self._unread)
            self._unread.clear()
            if not self._more():
                raise self._cut_off("body")
        del self._unread[:size]

    def _more(self) -> bool:
        data = self._receive(_PIECE)
        self._unread += data
        return bool(data)

    def _cut_off(self, part: str, *, first: bool = False) -> NoAnswerError:
        if first and self._unread[:5] != b"HTTP/"[: len(self._unread)]:
            return _garbled(self._unread)
        where = "before it answered" if first and not self._unread else f"within the {part} of its answer"
        return NoAnswerError(f"the server closed the connection {where}")


def _garbled(line: bytes | bytearray) -> NoAnswerError:
    return NoAnswerError(f"the answer is no HTTP: {one_line(line[:200].decode('latin-1'), 100)!r}")
