"""The signed, versioned wire message: a Payload, or a Claim of one that is stored.

    magic (1)  version (1)  flags (1)  created (8, milliseconds, big-endian)  [key id (8)  MAC (32)]  body (msgpack)

Magic, version, flags and creation time keep their places in every version, so that a process which cannot read the
rest can still tell how old it is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgpack

from .errors import DecodeError, SignatureError, UnknownVersionError
from .frozen import made
from .signing import KEY_ID_SIZE, MAC_SIZE, Signer

MAGIC = 0xDF
VERSION = 1
_HEADER = struct.Struct(">BBBQ")
_SIGNED, _COMPRESSED, _CLAIM = 1, 2, 4
_SIGNATURE = KEY_ID_SIZE + MAC_SIZE
MAX_INFLATED = 10 * 1024 * 1024
"""Bytes that a compressed body may have once inflated."""
_KEPT_BUFFER = 1024 * 1024
"""Bytes up to which a packer's buffer is kept for the next envelope."""
_idle: list[msgpack.Packer] = []


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Where a stored payload lies, and how to know that it is the right one."""

    store: str
    """The store's name."""
    alias: str
    """Which one of its kind."""
    key: str
    """The record's id."""
    digest: bytes
    """BLAKE2b of the payload, 32 bytes."""
    size: int
    """Its length in bytes."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What a queue carries."""

    payload: bytes | None = None
    """The call, or None where it is claimed."""
    claim: Claim | None = None
    """Where the call is stored."""
    created: float = 0.0
    """When it was made, in seconds since the epoch, to the millisecond."""
    deadline: float | None = None
    """Seconds that one attempt has; no header carries it."""
    expires: float | None = None
    """When it must no longer run, in seconds since the epoch."""
    trace: Mapping[str, str] = field(default_factory=dict)
    """The trace context of the caller (W3C header names)."""


def digest(payload: bytes) -> bytes:
    """What a Claim says of a payload."""
    return blake2b(payload, digest_size=32).digest()


def encode(envelope: Envelope, signer: Signer | None = None, *, compress: bool = False) -> bytes:
    """The bytes of an envelope, signed where there is a signer."""
    flags = (_SIGNED if signer else 0) | (_COMPRESSED if compress else 0) | (_CLAIM if envelope.claim else 0)
    header = _HEADER.pack(MAGIC, VERSION, flags, int(envelope.created * 1000))
    claim = envelope.claim
    content = [claim.store, claim.alias, claim.key, claim.digest, claim.size] if claim else envelope.payload
    body = _packed([envelope.deadline, envelope.expires, dict(envelope.trace) or None, content])
    if compress:
        body = zlib.compress(body)
    return header + signer.sign(header, body) + body if signer else header + body


def _packed(content: list[Any]) -> bytes:
    """Packers are reused, and whoever is at it has one for itself."""
    try:
        packer = _idle.pop()
    except IndexError:
        packer = msgpack.Packer(unicode_errors="surrogatepass", buf_size=1024)
    data: bytes = packer.pack(content)
    if len(data) <= _KEPT_BUFFER:
        _idle.append(packer)
    return data


def is_envelope(data: bytes) -> bool:
    """Whether these bytes claim to be an envelope."""
    return data[:1] == bytes((MAGIC,))


def created_at(data: bytes) -> float | None:
    """When an envelope was made, whatever its version and key; None for bytes that are none."""
    if len(data) < _HEADER.size or data[0] != MAGIC:
        return None
    created: int = _HEADER.unpack_from(data)[3]
    return created / 1000


def decode(data: bytes, signer: Signer | None = None, *, require_signature: bool = False) -> Envelope:
    """Verify and read an envelope. Nothing of the body is looked at before its signature has been.

    Raises DecodeError, SignatureError (none or a wrong one, where there are keys), UnknownKeyError or
    UnknownVersionError.
    """
    if len(data) < _HEADER.size or data[0] != MAGIC:
        raise DecodeError("The body of the task is no envelope of defer.")
    _, version, flags, created = _HEADER.unpack_from(data)
    if version != VERSION or flags & ~(_SIGNED | _COMPRESSED | _CLAIM):
        raise UnknownVersionError(
            f"The envelope is of version {version} (flags {flags:#x}); this release reads {VERSION}."
        )
    header, body = data[: _HEADER.size], data[_HEADER.size :]
    if flags & _SIGNED:
        if len(body) < _SIGNATURE:
            raise DecodeError("The envelope ends within its signature.")
        signature, body = body[:_SIGNATURE], body[_SIGNATURE:]
        if signer is not None:
            signer.verify(header, signature, body)
        elif require_signature:
            raise SignatureError("This door needs a signed task, and no key is configured to verify it with.")
    elif signer is not None or require_signature:
        raise SignatureError("The task is not signed.")
    try:
        return _read(
            _inflate(body) if flags & _COMPRESSED else body, claimed=bool(flags & _CLAIM), created=created / 1000
        )
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(f"The envelope cannot be read: {error}") from error


def _inflate(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    data = inflater.decompress(body, MAX_INFLATED)
    if not inflater.eof or inflater.unconsumed_tail or inflater.unused_data:
        raise DecodeError(f"The envelope does not inflate to an end within {MAX_INFLATED} bytes.")
    return data


def _read(body: bytes, *, claimed: bool, created: float) -> Envelope:
    content: Any
    deadline, expires, trace, content = msgpack.unpackb(body, unicode_errors="surrogatepass")
    if deadline is not None or expires is not None or trace is not None:
        _expect(deadline is None or _is_time(deadline), "deadline")
        _expect(expires is None or _is_time(expires), "expiry")
        _expect(trace is None or (isinstance(trace, dict) and all(map(_is_text, trace.items()))), "trace")
    payload, claim = (None, _claim(content)) if claimed else (content, None)
    if claim is None and type(payload) is not bytes:
        raise DecodeError("The envelope has no payload.")
    return made(
        Envelope,
        payload=payload, claim=claim, created=created, deadline=deadline, expires=expires, trace=trace or {},
    )  # fmt: skip


def _claim(content: Any) -> Claim:
    store, alias, key, checksum, size = content
    _expect(all(isinstance(text, str) for text in (store, alias, key)), "claim")
    _expect(isinstance(checksum, bytes) and type(size) is int and size >= 0, "claim")
    return Claim(store=store, alias=alias, key=key, digest=checksum, size=size)


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")


def _is_text(pair: tuple[Any, Any]) -> bool:
    return isinstance(pair[0], str) and isinstance(pair[1], str)


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise DecodeError(f"The envelope's {what} is of the wrong type.")
