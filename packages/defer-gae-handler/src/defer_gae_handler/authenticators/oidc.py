"""OIDC tokens: Cloud Tasks sends one that Google has signed to an HTTP target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from defer_core.errors import ConfigError, MissingExtraError
from defer_core.spi import on_google_cloud, one_line

from ..request import Request
from .base import AuthenticatorUnavailableError, ExplainingAuthenticator
from .bearer import NO_TOKEN, bearer_token
from .certificates import Certificates

GOOGLE_CERTS = "https://www.googleapis.com/oauth2/v3/certs"
GOOGLE_KEYS = "https://www.googleapis.com/"
"""How the URLs of Google's keys begin."""
GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
MAX_TOKEN = 16_384
"""Characters of the longest token that is parsed."""


class OidcToken(ExplainingAuthenticator):
    """Accepts an unexpired token for one of our audiences, of one of our service accounts.

    `audience` and `email` are strings or lists of them. Both are required: anyone can get a token from Google for any
    audience. `leeway` is the seconds by which clocks may differ, `timeout` those that the certificate server gets. On
    Google Cloud only Google may be the issuer. Raises ConfigError.
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
        if on_google_cloud():
            _check_issuer(self._issuers, certs_url)
        self._leeway = leeway
        self._jwt = _library()
        self._certificates = Certificates(certs_url, timeout=timeout)

    def refusal(self, request: Request) -> str | None:
        token = bearer_token(request)
        if token is None:
            return NO_TOKEN
        if len(token) > MAX_TOKEN:
            return f"token too long ({len(token)} characters)"
        try:
            self._verify(token)
        except AuthenticatorUnavailableError:
            raise
        except _RefusedError as error:
            return str(error)
        except Exception as error:  # anything that parsers raise for a stranger's text, RecursionError included
            return f"invalid token ({one_line(error)})"
        return None

    def _verify(self, token: str) -> None:
        """Raise _RefusedError, AuthenticatorUnavailableError, or an error of PyJWT's."""
        key_id = self._plausible(token)
        key = self._certificates.key(key_id)
        if key is None:
            raise _RefusedError(f"unknown key ({_shown(key_id)})")
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
        """Return the key id if the token needs but a valid signature: for others no keys are fetched."""
        header = self._jwt.get_unverified_header(token)
        if header.get("alg") != "RS256" or not isinstance(header.get("kid"), str):
            raise _RefusedError("wrong signature (expected RS256 and a key id)")
        claims = self._jwt.decode(token, options={"verify_signature": False})
        self._check(claims)
        return str(header["kid"])

    def _check(self, claims: dict[str, Any]) -> None:
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if not any(each in self._audiences for each in audiences):
            raise _wrong("audience", audience, self._audiences)
        if claims.get("iss") not in self._issuers:
            raise _wrong("issuer", claims.get("iss"), self._issuers)
        if claims.get("email") not in self._emails:
            raise _wrong("e-mail", claims.get("email"), self._emails)
        if claims.get("email_verified") is not True:
            raise _RefusedError(f"unverified e-mail (email_verified is {_shown(claims.get('email_verified'))})")


class _RefusedError(Exception):
    """The token is not one that we accept."""


def _wrong(what: str, claim: Any, expected: Sequence[str]) -> _RefusedError:
    return _RefusedError(f"wrong {what} ({_shown(claim)}, expected {' or '.join(map(repr, expected))})")


def _shown(claim: Any) -> str:
    return one_line(repr(claim), 100)


def _several(name: str, given: str | Sequence[str]) -> list[str]:
    several = [given] if isinstance(given, str) else list(given)
    if not several or not all(isinstance(each, str) and each for each in several):
        raise ConfigError(
            f"The authenticator 'oidc' needs `{name}`: authenticator_options={{'oidc': {{'{name}': '...'}}}}."
        )
    return several


def _check_issuer(issuers: Sequence[str], certs_url: str) -> None:
    """Raise ConfigError if others than Google are trusted: a local configuration has been deployed."""
    strange = [each for each in issuers if each not in GOOGLE_ISSUERS]
    if not certs_url.startswith(GOOGLE_KEYS):
        strange.append(certs_url)
    if strange:
        raise ConfigError(
            f"The authenticator 'oidc' trusts {', '.join(strange)}. On Google Cloud (GAE_ENV, K_SERVICE) it may trust "
            "Google alone: leave out `issuers` and `certs_url`."
        )


def _library() -> Any:
    try:
        import cryptography  # noqa: F401 (PyJWT needs it for RS256)
        import jwt
    except ImportError as error:
        raise MissingExtraError(
            "The authenticator 'oidc' needs PyJWT: pip install 'defer-gae-handler[oidc]'."
        ) from error
    return jwt
