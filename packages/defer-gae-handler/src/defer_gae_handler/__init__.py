"""The handler of defer: one HTTP request of a queue is authenticated, run and answered."""

from __future__ import annotations

from typing import Any

from .__about__ import __version__
from .authenticators import Authenticator, AuthenticatorUnavailableError
from .handler import handle
from .request import Request, Response
from .wsgi import make_application, wrap_wsgi_app

__all__ = [
    "Authenticator",
    "AuthenticatorUnavailableError",
    "Request",
    "Response",
    "__version__",
    "handle",
    "make_application",
    "wrap_wsgi_app",
]


def __getattr__(name: str) -> Any:
    """Find `application`: see `defer_gae_handler.wsgi`."""
    if name != "application":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import wsgi

    return wsgi.application
