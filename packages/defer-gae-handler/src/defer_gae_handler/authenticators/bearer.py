"""The token that a request bears."""

from __future__ import annotations

from ..request import Request

NO_TOKEN = "no token (Authorization: Bearer)"


def bearer_token(request: Request) -> str | None:
    """Return the token of `Authorization: Bearer …`, or None. Cloud Run prefers `X-Serverless-Authorization`."""
    for name in ("X-Serverless-Authorization", "Authorization"):
        scheme, _, token = request.headers.get(name, "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
    return None
