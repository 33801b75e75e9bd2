"""Google's public keys, which verify its tokens: fetched when needed, kept as long as the answer allows."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from defer_core.spi import clock, one_line

from .base import AuthenticatorUnavailableError
from .fetching import Fetch

SURPRISES = (5, 60.0)
"""How often, in how many seconds, an unknown key id makes us fetch the keys again."""


class Certificates:
    """The keys at `url`: a JSON Web Key Set, or an object of PEM certificates or keys by key id."""

    def __init__(self, url: str, *, timeout: float) -> None:
        self.url = url
        self._timeout = timeout
        self._keys: dict[str, Any] = {}
        self._expires = 0.0
        self._failed_at = 0.0
        self._failure = ""
        self._surprises: deque[float] = deque(maxlen=SURPRISES[0])
        self._lock = threading.Lock()

    def key(self, key_id: str) -> Any:
        """Return the public key of that id, or None. Raises AuthenticatorUnavailableError if the server does not answer
        and no answer of its that is still valid has the key."""
        asked, key = time.monotonic(), self._keys.get(key_id)
        if key is not None and clock.now() < self._expires:
            return key  # without waiting for a thread that fetches others
        with self._lock:
            now = clock.now()
            if now >= self._expires or (key_id not in self._keys and self._may_be_new(now)):
                self._refresh(now, asked)
            return self._keys.get(key_id)

    def _may_be_new(self, now: float) -> bool:
        """Allow a few fetches: keys rotate, but strangers invent ids."""
        if len(self._surprises) == SURPRISES[0] and now - self._surprises[0] < SURPRISES[1]:
            return False
        self._surprises.append(now)
        return True

    def _refresh(self, now: float, asked: float) -> None:
        if self._failure and self._failed_at >= asked:
            raise AuthenticatorUnavailableError(self._failure)  # it failed while this thread was waiting for the lock
        try:
            content, lifetime = Fetch(self.url, self._timeout).result()
            self._keys, self._expires, self._failure = _parsed(content), now + lifetime, ""
        except Exception as error:  # of the network, or of a parser of the answer
            self._failed_at = time.monotonic()
            self._failure = f"the certificates at {self.url} cannot be fetched: {one_line(repr(error))}"
            raise AuthenticatorUnavailableError(self._failure) from error


def _parsed(content: Any) -> dict[str, Any]:
    """Return the keys by id, without those of unknown kinds. Raises ValueError if none is left."""
    given = content["keys"] if isinstance(content.get("keys"), list) else content
    keys = {each["kid"]: _jwk(each) for each in given} if isinstance(given, list) else _pems(given)
    usable = {key_id: key for key_id, key in keys.items() if key is not None}
    if not usable:
        raise ValueError("there is no usable key in the answer")
    return usable


def _jwk(given: dict[str, Any]) -> Any:
    import jwt

    if given.get("kty") != "RSA" or given.get("use", "sig") != "sig":
        return None
    try:
        return jwt.PyJWK.from_dict(given, "RS256").key
    except jwt.PyJWTError:
        return None


def _pems(given: dict[str, str]) -> dict[str, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return {
        key_id: x509.load_pem_x509_certificate(pem.encode()).public_key()
        if "CERTIFICATE" in pem
        else load_pem_public_key(pem.encode())
        for key_id, pem in given.items()
    }
