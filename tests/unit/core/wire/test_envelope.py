"""The envelope there and back, and what of it a signature covers."""

from __future__ import annotations

import zlib
from dataclasses import replace

import msgpack
import pytest

from defer_core.config.signing import KEY_ID_SIZE, MAC_SIZE, Signer
from defer_core.errors import DecodeError, SignatureError, UnknownKeyError, UnknownVersionError
from defer_core.wire import envelope
from defer_core.wire.envelope import ClaimCheck, Envelope, created_at, decode, digest, encode

SEALED = Envelope(payload=b"payload", created=1_800_000_000.125, deadline=30, expires=1_800_000_060.0, trace={"a": "b"})
CLAIM = ClaimCheck(store="django", alias="other", key="k" * 32, digest=digest(b"payload"), size=7)
HEADER = 11


@pytest.mark.parametrize("sealed", [SEALED, replace(SEALED, payload=None, claim_check=CLAIM)], ids=["payload", "claim"])
@pytest.mark.parametrize("secrets", [None, ["one"], ["two", "one"]])
@pytest.mark.parametrize("compress", [False, True])
def test_there_and_back(sealed: Envelope, secrets: list[str] | None, compress: bool) -> None:
    wire = encode(sealed, Signer(["one"]) if secrets else None, compress=compress)
    assert decode(wire, Signer(secrets) if secrets else None) == sealed
    assert created_at(wire) == SEALED.created


def test_every_byte_is_covered() -> None:
    """No change of any bit is read: each is a wrong signature, or no envelope, version or key that is known."""
    signer = Signer(["one"])
    wire = encode(SEALED, signer)
    for at in range(len(wire)):
        for bit in range(8):
            changed = bytearray(wire)
            changed[at] ^= 1 << bit
            with pytest.raises((DecodeError, UnknownKeyError, UnknownVersionError)):
                decode(bytes(changed), signer)


def test_a_signature_is_needed_where_there_are_keys_or_the_authenticator_says_so() -> None:
    unsigned, signed = encode(SEALED), encode(SEALED, Signer(["one"]))
    assert decode(unsigned) == decode(signed) == SEALED
    with pytest.raises(SignatureError, match="not signed"):
        decode(unsigned, Signer(["one"]))
    with pytest.raises(SignatureError):
        decode(unsigned, require_signature=True)
    with pytest.raises(SignatureError, match="no key"):
        decode(signed, require_signature=True)


def test_an_envelope_that_is_cut_off_is_refused_for_good() -> None:
    wire = encode(SEALED, Signer(["one"]))
    for length in range(HEADER + KEY_ID_SIZE + MAC_SIZE):
        with pytest.raises(DecodeError, match="not an envelope" if length < HEADER else "ends within its signature"):
            decode(wire[:length], Signer(["one"]))
        assert created_at(wire[:length]) == (None if length < HEADER else SEALED.created)
    for length in range(HEADER + KEY_ID_SIZE + MAC_SIZE, len(wire)):
        with pytest.raises(SignatureError):
            decode(wire[:length], Signer(["one"]))


def test_nothing_is_inflated_or_read_before_its_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = bytearray(encode(SEALED, Signer(["one"]), compress=True))
    wire[-1] ^= 1

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("read before it was verified")

    monkeypatch.setattr(zlib, "decompressobj", refuse)
    monkeypatch.setattr(envelope.msgpack, "unpackb", refuse)
    with pytest.raises(SignatureError):
        decode(bytes(wire), Signer(["one"]))


@pytest.mark.parametrize(
    "wire", [b"", b"\xdf", b"\xdf\x01\x00" + b"\x00" * 8, b"\x80" * 20, b"\xdf\x01\x02" + b"\x00" * 20]
)
def test_what_is_no_envelope_is_said_to_be_none(wire: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(wire)


@pytest.mark.parametrize("content", [None, [], "text", [1, 2, 3, 4], ["a", "b", "c", b"d", -1], {"a": 1}])
@pytest.mark.parametrize("flags", [0, 4])
def test_content_of_the_wrong_form_is_refused(content: object, flags: int) -> None:
    header = bytes((0xDF, 1, flags)) + (0).to_bytes(8, "big")
    with pytest.raises(DecodeError):
        decode(header + msgpack.packb([None, None, None, content]))


@pytest.mark.parametrize("wrong", ["30", -1, float("inf"), float("nan"), True, [30]])
@pytest.mark.parametrize(("field", "place"), [("deadline", 0), ("expiry", 1)])
def test_a_time_of_the_wrong_form_is_refused(wrong: object, field: str, place: int) -> None:
    said: list[object] = [None, None, None, b"payload"]
    said[place] = wrong
    with pytest.raises(DecodeError, match=field):
        decode(bytes((0xDF, 1, 0)) + bytes(8) + msgpack.packb(said))


@pytest.mark.parametrize("wrong", ["a", ["a"], 1, {"a": 1}, {1: "a"}])
def test_a_trace_of_the_wrong_form_is_refused(wrong: object) -> None:
    with pytest.raises(DecodeError, match=r"trace|not allowed"):
        decode(bytes((0xDF, 1, 0)) + bytes(8) + msgpack.packb([None, None, wrong, b"payload"]))


def test_a_later_version_is_not_readable_yet() -> None:
    wire = bytearray(encode(SEALED))
    wire[1] = 2
    with pytest.raises(UnknownVersionError, match="version 2"):
        decode(bytes(wire))
    assert created_at(bytes(wire)) == SEALED.created
