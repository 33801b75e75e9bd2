"""Authenticators: what a request must prove before its body is read."""

from __future__ import annotations

from .base import Authenticator, AuthenticatorUnavailableError
from .configured import configured_authenticators

__all__ = ["Authenticator", "AuthenticatorUnavailableError", "configured_authenticators"]
