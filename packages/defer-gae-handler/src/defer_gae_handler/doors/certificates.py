"""Google's public keys, which verify its tokens: fetched when needed, kept as long as the answer allows."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections import deque
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from defer_core import clock

from .base import DoorUnavailableError

MAX_SIZE = 1_000_000
"""Bytes of an answer that are read at the most."""
LIFETIME = (60.0, 3600.0, 86400.0)
"""Seconds that keys are kept: least, where the answer does not say, most."""
SURPRISES = (5, 60.0)
"""How often, in how many seconds, a key that is not known has all of them fetched again."""


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
        """The public key, or None where there is none of that id. Raises DoorUnavailableError where that cannot be
        told, because the server does not answer, and none of its answers that still hold has the key."""
        asked = time.monotonic()
        with self._lock:
            now = clock.now()
            if now >= self._expires or (key_id not in self._keys and self._may_be_new(now)):
                self._refresh(now, asked)
            return self._keys.get(key_id)

    def _may_be_new(self, now: float) -> bool:
        """Keys rotate; but strangers make ids up."""
        if len(self._surprises) == SURPRISES[0] and now - self._surprises[0] < SURPRISES[1]:
            return False
        self._surprises.append(now)
        return True

    def _refresh(self, now: float, asked: float) -> None:
        if self._failure and self._failed_at >= asked:
            raise DoorUnavailableError(self._failure)  # it failed while this thread was waiting for the lock
        try:
            content, lifetime = self._fetch()
            self._keys, self._expires, self._failure = _parsed(content), now + lifetime, ""
        except (OSError, HTTPException, ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, HTTPError):
                error.close()
            self._failed_at = time.monotonic()
            self._failure = f"the certificates at {self.url} cannot be had: {error!r}"
            raise DoorUnavailableError(self._failure) from error

    def _fetch(self) -> tuple[Any, float]:
        with urllib.request.urlopen(self.url, timeout=self._timeout) as answer:
            said = re.search(r"max-age=(\d+)", answer.headers.get("Cache-Control") or "")
            content = answer.read(MAX_SIZE)
        least, usual, most = LIFETIME
        return json.loads(content), min(max(float(said[1]), least), most) if said else usual


def _parsed(content: Any) -> dict[str, Any]:
    """The keys by id. Those of kinds that this release does not know are left out; no key at all is a ValueError."""
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
