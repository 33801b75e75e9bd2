"""The signed, versioned wire message: a Payload, or a claim check of one that is stored.

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

from ..config.signing import KEY_ID_SIZE, MAC_SIZE, Signer
from ..errors import DecodeError, SignatureError, UnknownVersionError
from ..nouns import fast_init
from .pool import Pool

MAGIC = 0xDF
VERSION = 1
_HEADER = struct.Struct(">BBBQ")
_SIGNED, _COMPRESSED, _CLAIM_CHECK = 1, 2, 4
_SIGNATURE = KEY_ID_SIZE + MAC_SIZE
MAX_INFLATED = 10 * 1024 * 1024
"""Bytes that a compressed body may have once inflated."""
_packers: Pool[msgpack.Packer] = Pool(lambda: msgpack.Packer(unicode_errors="surrogatepass", buf_size=1024))


@dataclass(frozen=True, kw_only=True)
class ClaimCheck:
    """The key of a stored payload, and the proof that it is the right one."""

    store: str
    """The store's name."""
    alias: str
    """Which store of its kind."""
    key: str
    """The record's id."""
    digest: bytes
    """BLAKE2b of the payload, 32 bytes."""
    size: int
    """Its length in bytes."""

    def check(self, payload: bytes) -> None:
        """Raise DecodeError for a payload that is not the one that was stored."""
        if len(payload) != self.size or digest(payload) != self.digest:
            raise DecodeError(f"The stored payload of record {self.key} is not the one that the task was sent with.")


@fast_init
@dataclass(frozen=True, kw_only=True)
class Envelope:
    """The message that a queue carries."""

    payload: bytes | None = None
    """The call; None if it is stored."""
    claim_check: ClaimCheck | None = None
    """The claim check of a stored call."""
    created: float = 0.0
    """When it was made, in seconds since the epoch, to the millisecond."""
    deadline: float | None = None
    """Seconds that one attempt has; no header has it."""
    expires: float | None = None
    """When it expires, in seconds since the epoch."""
    trace: Mapping[str, str] = field(default_factory=dict)
    """Entries that travel with the call: the trace context of the caller (W3C header names), and our own
    (`defer-…`)."""


def digest(payload: bytes) -> bytes:
    """Return the digest of a payload for its claim check."""
    return blake2b(payload, digest_size=32).digest()


def encode(envelope: Envelope, signer: Signer | None = None, *, compress: bool = False) -> bytes:
    """Return the bytes of an envelope, signed if there is a signer."""
    check = envelope.claim_check
    flags = (_SIGNED if signer else 0) | (_COMPRESSED if compress else 0) | (_CLAIM_CHECK if check else 0)
    header = _HEADER.pack(MAGIC, VERSION, flags, int(envelope.created * 1000))
    content = [check.store, check.alias, check.key, check.digest, check.size] if check else envelope.payload
    body = _packed([envelope.deadline, envelope.expires, dict(envelope.trace) or None, content])
    if compress:
        body = zlib.compress(body)
    return header + signer.sign(header, body) + body if signer else header + body


def _packed(content: list[Any]) -> bytes:
    packer = _packers.take()
    data: bytes = packer.pack(content)
    _packers.give_back(packer, len(data))
    return data


def is_envelope(data: bytes) -> bool:
    """Return True if these bytes begin as an envelope does."""
    return data[:1] == bytes((MAGIC,))


def created_at(data: bytes) -> float | None:
    """Return when an envelope was made, whatever its version and key; None for other bytes."""
    if len(data) < _HEADER.size or data[0] != MAGIC:
        return None
    created: int = _HEADER.unpack_from(data)[3]
    return created / 1000


def decode(data: bytes, signer: Signer | None = None, *, require_signature: bool = False) -> Envelope:
    """Verify and read an envelope. Its body is not read before its signature is verified.

    Raises DecodeError, SignatureError (a missing or a wrong one, if there are keys), UnknownKeyError or
    UnknownVersionError.
    """
    if len(data) < _HEADER.size or data[0] != MAGIC:
        raise DecodeError("The body of the task is not an envelope of defer.")
    _, version, flags, created = _HEADER.unpack_from(data)
    if version != VERSION or flags & ~(_SIGNED | _COMPRESSED | _CLAIM_CHECK):
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
            raise SignatureError("This authenticator needs a signed task, and no key is configured to verify it with.")
    elif signer is not None or require_signature:
        raise SignatureError("The task is not signed.")
    try:
        return _read(
            _inflate(body) if flags & _COMPRESSED else body,
            is_stored=bool(flags & _CLAIM_CHECK),
            created=created / 1000,
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


def _read(body: bytes, *, is_stored: bool, created: float) -> Envelope:
    content: Any
    deadline, expires, trace, content = msgpack.unpackb(body, unicode_errors="surrogatepass")
    if deadline is not None or expires is not None or trace is not None:
        _expect(deadline is None or _is_time(deadline), "deadline")
        _expect(expires is None or _is_time(expires), "expiry")
        _expect(trace is None or (isinstance(trace, dict) and all(map(_is_text, trace.items()))), "trace")
    payload, check = (None, _claim_check(content)) if is_stored else (content, None)
    if check is None and type(payload) is not bytes:
        raise DecodeError("The envelope has no payload.")
    return Envelope(
        payload=payload, claim_check=check, created=created, deadline=deadline, expires=expires, trace=trace or {},
    )  # fmt: skip


def _claim_check(content: Any) -> ClaimCheck:
    store, alias, key, checksum, size = content
    _expect(all(isinstance(text, str) for text in (store, alias, key)), "claim check")
    _expect(isinstance(checksum, bytes) and type(size) is int and size >= 0, "claim check")
    return ClaimCheck(store=store, alias=alias, key=key, digest=checksum, size=size)


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")


def _is_text(pair: tuple[Any, Any]) -> bool:
    return isinstance(pair[0], str) and isinstance(pair[1], str)


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise DecodeError(f"The envelope's {what} is of the wrong type.")
