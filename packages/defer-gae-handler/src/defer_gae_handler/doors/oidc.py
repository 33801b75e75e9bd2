"""The door of HTTP targets: Cloud Tasks sends a token that Google has signed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

from defer_core.errors import ConfigError

from ..request import Request
from .base import Door
from .bearer import bearer_token
from .certificates import Certificates

log = logging.getLogger("defer.handler")

GOOGLE_CERTS = "https://www.googleapis.com/oauth2/v3/certs"
GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
MAX_TOKEN = 16_384
"""Characters of a token that are looked at."""


class OidcDoor(Door):
    """Opens to an unexpired token for one of our audiences, of one of our service accounts.

    `audience` and `email` are a string each, or several; both are needed, for anybody can get a token of Google's for
    any audience. `leeway` is in seconds, for clocks that differ; `timeout` is what the certificate server gets.
    """

    name: ClassVar[str] = "oidc"
    target: ClassVar[str] = ""

    def __init__(
        self,
        *,
        audience: str | Sequence[str] = (),
        email: str | Sequence[str] = (),
        issuers: str | Sequence[str] = GOOGLE_ISSUERS,
        certs_url: str = GOOGLE_CERTS,
        leeway: float = 60.0,
        timeout: float = 5.0,
    ) -> None:
        self._audiences = _several("audience", audience)
        self._emails = _several("email", email)
        self._issuers = _several("issuers", issuers)
        self._leeway = leeway
        self._jwt = _library()
        self._certificates = Certificates(certs_url, timeout=timeout)

    def admits(self, request: Request) -> bool:
        token = bearer_token(request)
        if token is None or len(token) > MAX_TOKEN:
            return False
        try:
            self._verify(token)
        except (self._jwt.PyJWTError, ValueError) as error:
            log.info("A token was refused: %s", error)
            return False
        return True

    def _verify(self, token: str) -> None:
        """Raises PyJWTError, ValueError or DoorUnavailableError."""
        key_id = self._plausible(token)
        key = self._certificates.key(key_id)
        if key is None:
            raise ValueError(f"it is signed with {key_id[:80]!r}, which is no key of its issuer's")
        claims = self._jwt.decode(
            token,
            key,
            algorithms=["RS256"],
            audience=self._audiences,
            leeway=self._leeway,
            options={"require": ["exp", "iat", "iss", "aud"]},
        )
        self._check(claims)

    def _plausible(self, token: str) -> str:
        """The key id of a token that, if its signature is right, is for us: nobody makes us fetch keys for less."""
        header = self._jwt.get_unverified_header(token)
        if header.get("alg") != "RS256" or not isinstance(header.get("kid"), str):
            raise ValueError("it is not signed with RS256 and a named key")
        claims = self._jwt.decode(token, options={"verify_signature": False})
        self._check(claims)
        return str(header["kid"])

    def _check(self, claims: dict[str, Any]) -> None:
        audience = claims.get("aud")
        told = audience if isinstance(audience, list) else [audience]
        if not any(each in self._audiences for each in told):
            raise ValueError(f"it is for {audience!r}")
        if claims.get("iss") not in self._issuers:
            raise ValueError(f"it is issued by {claims.get('iss')!r}")
        if claims.get("email") not in self._emails or claims.get("email_verified") is not True:
            raise ValueError(f"it is of {claims.get('email')!r} (email_verified {claims.get('email_verified')!r})")


def _several(name: str, given: str | Sequence[str]) -> list[str]:
    several = [given] if isinstance(given, str) else list(given)
    if not several or not all(isinstance(each, str) and each for each in several):
        raise ConfigError(f'The door \'oidc\' needs `{name}`: door_options={{"oidc": {{"{name}": "..."}}}}.')
    return several


def _library() -> Any:
    try:
        import cryptography  # noqa: F401 (PyJWT needs it for RS256)
        import jwt
    except ImportError as error:
        raise ConfigError("The door 'oidc' needs PyJWT: install defer-gae-handler[oidc].") from error
    return jwt
