"""Keys that sign envelopes: the first of a list signs, all of them verify."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from ..errors import ConfigError, SignatureError, UnknownKeyError

KEY_ID_SIZE = 8
MAC_SIZE = 32


@dataclass(frozen=True, kw_only=True, repr=False)
class Key:
    """One signing key, derived from a secret."""

    id: bytes
    """Says which key has signed, and reveals nothing of the secret."""
    material: bytes
    """The derived key."""

    def mac(self, message: bytes) -> bytes:
        """Return the MAC of a message."""
        digest = self._keyed.copy()
        digest.update(message)
        return digest.digest()

    @cached_property
    def _keyed(self) -> blake2b:
        return blake2b(key=self.material, digest_size=MAC_SIZE)


def derive(secret: str | bytes) -> Key:
    """Return the key of a secret of any length (BLAKE2b itself takes 64 bytes). Raises ConfigError for an empty one,
    and for another type: `bytes(5)` would be a key that everyone knows."""
    if not isinstance(secret, str | bytes):
        raise ConfigError(f"A signing key is a {type(secret).__name__}: give a str or bytes.")
    data = secret.encode() if isinstance(secret, str) else bytes(secret)
    if not data:
        raise ConfigError("A signing key is empty: give a secret of at least 16 random bytes, or no key at all.")
    material = blake2b(data, digest_size=32, salt=b"defer", person=b"envelope").digest()
    return Key(id=blake2b(material, digest_size=KEY_ID_SIZE, person=b"key id").digest(), material=material)


class Signer:
    """Signs with the first key, and verifies with any."""

    def __init__(self, secrets: Iterable[str | bytes]) -> None:
        keys = [derive(secret) for secret in secrets]
        if not keys:
            raise ConfigError("A signer needs at least one key.")
        self._first = keys[0]
        self._keys = {key.id: key for key in reversed(keys)}

    def sign(self, header: bytes, body: bytes) -> bytes:
        """Return key id and MAC of an envelope."""
        key = self._first
        return key.id + key.mac(header + key.id + body)

    def verify(self, header: bytes, signature: bytes, body: bytes) -> None:
        """Raises UnknownKeyError for a key that is not ours, SignatureError for a MAC that is wrong."""
        key_id, mac = signature[:KEY_ID_SIZE], signature[KEY_ID_SIZE:]
        key = self._keys.get(key_id)
        if key is None:
            raise UnknownKeyError(
                f"The task is signed with the key {key_id.hex()}, which is not among those configured."
            )
        if not hmac.compare_digest(mac, key.mac(header + key_id + body)):
            raise SignatureError(f"The signature of the task is wrong (key {key_id.hex()}).")
