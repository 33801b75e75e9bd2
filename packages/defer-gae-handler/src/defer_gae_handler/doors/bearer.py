"""Where a request bears its token."""

from __future__ import annotations

from ..request import Request


def bearer_token(request: Request) -> str | None:
    """The token of `Authorization: Bearer …`, or None. (Cloud Run prefers `X-Serverless-Authorization` to it.)"""
    for name in ("X-Serverless-Authorization", "Authorization"):
        scheme, _, token = request.headers.get(name, "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
    return None
