"""Orders on Cloud Run: Cloud Tasks posts to this service, with a token that Google signs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

import defer_core
import defer_gae_handler

URL = os.environ["SERVICE_URL"]
ACCOUNT = os.environ["TASKS_ACCOUNT"]
# On a laptop tasks come from `defer-local --grpc`, which signs with a key of its own; it is refused elsewhere.
LOCAL_ISSUER = os.environ.get("LOCAL_ISSUER")
TRUSTED = {"issuers": LOCAL_ISSUER, "certs_url": f"{LOCAL_ISSUER}/certs"} if LOCAL_ISSUER else {}

defer_core.configure(
    transport="cloud",
    transport_options={"base_url": URL, "service_account_email": ACCOUNT, "audience": URL},
    store=os.environ.get("DEFER_STORE", "ndb"),
    keys=[os.environ["DEFER_SECRET"]],
    authenticators=["oidc"],
    authenticator_options={"oidc": {"audience": URL, "email": ACCOUNT, **TRUSTED}},
)


# Where the service requires authentication, Cloud Run itself checks the token: authenticators=["cloud-run-iam"].


def greet(name: str) -> None:
    """The task."""
    logging.info("Hello, %s.", name)


def site(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """POST / defers a greeting."""
    if environ["REQUEST_METHOD"] == "POST":
        text = f"deferred as {defer_core.defer(greet, 'world').name}\n"
    else:
        text = "POST here\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]


logging.basicConfig(level=logging.INFO)
app = defer_gae_handler.wrap_wsgi_app(site)
