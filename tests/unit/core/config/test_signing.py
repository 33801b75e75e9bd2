"""Keys: derived, rotated, retired."""

from __future__ import annotations

import pytest

from defer_core.config.signing import KEY_ID_SIZE, Signer, derive
from defer_core.errors import ConfigError, UnknownKeyError
from defer_core.wire.envelope import Envelope, decode, encode

SEALED = Envelope(payload=b"payload", created=1_800_000_000.125, deadline=30, expires=1_800_000_060.0, trace={"a": "b"})


def test_a_key_is_derived_and_tells_nothing_of_its_secret() -> None:
    key = derive("s" * 500)
    assert derive(b"s" * 500) == key != derive("s" * 499)
    assert len(key.id) == KEY_ID_SIZE and "sss" not in repr(key) and key.material.hex() not in repr(key)


@pytest.mark.parametrize("secrets", [[], [""], ["good", b""]])
def test_no_key_and_an_empty_key_are_refused(secrets: list[str | bytes]) -> None:
    with pytest.raises(ConfigError):
        Signer(secrets)


def test_the_first_key_signs_and_a_retired_one_is_unknown() -> None:
    new = encode(SEALED, Signer(["new", "old"]))
    old = encode(SEALED, Signer(["old"]))
    assert decode(old, Signer(["new", "old"])) == SEALED
    assert decode(new, Signer(["new"])) == SEALED
    with pytest.raises(UnknownKeyError, match=derive("old").id.hex()):
        decode(old, Signer(["new"]))
