"""The outermost layer of a task's body: a valid pickle of `(defer_core.run_envelope, (<bytes>,), {})`.

Google's own handler (`google.appengine.ext.deferred`) unpickles a body and calls what it finds, so it runs our tasks
unmodified. We never unpickle one: the constant prefix says that it is ours, and the length says where it ends.
"""

from __future__ import annotations

from ..errors import DecodeError

# protocol 3; GLOBAL defer_core.run_envelope; BINBYTES (its 4-byte little-endian length follows)
PREFIX = b"\x80\x03cdefer_core\nrun_envelope\nB"
# TUPLE1, EMPTY_DICT, TUPLE3, STOP
SUFFIX = b"\x85}\x87."
_LENGTH = 4
_START = len(PREFIX) + _LENGTH
OVERHEAD = len(PREFIX) + _LENGTH + len(SUFFIX)
"""Bytes that the frame adds to an envelope."""


def wrap(envelope: bytes) -> bytes:
    """Return the body of a queue task for an encoded envelope."""
    return b"".join((PREFIX, len(envelope).to_bytes(_LENGTH, "little"), envelope, SUFFIX))


def is_framed(body: bytes) -> bool:
    """Return True if a body begins as ours do."""
    return body.startswith(PREFIX)


def is_cut_off(body: bytes) -> bool:
    """Return True if a body is only the beginning of one of ours."""
    if len(body) < _START:
        return body.startswith(PREFIX) or PREFIX.startswith(body)
    return is_framed(body) and len(body) < OVERHEAD + int.from_bytes(body[len(PREFIX) : _START], "little")


def unwrap(body: bytes) -> bytes:
    """Return the envelope in a framed body. Raises DecodeError if the length or the end is wrong."""
    length = int.from_bytes(body[len(PREFIX) : _START], "little")
    if len(body) != OVERHEAD + length or not body.endswith(SUFFIX):
        raise DecodeError(f"The frame of the task says {length} bytes, and there are {len(body) - OVERHEAD}.")
    return body[_START : _START + length]
