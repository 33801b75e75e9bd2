"""Tokens on a Cloud Run service that requires authentication: the platform has checked them already."""

from __future__ import annotations

from typing import ClassVar

from ..request import Request
from .base import ExplainingAuthenticator
from .bearer import NO_TOKEN, bearer_token

REMOVED = frozenset({"SIGNATURE_REMOVED_BY_GOOGLE", ""})
"""What Cloud Run leaves of a token's signature once it has checked it."""


class CloudRunToken(ExplainingAuthenticator):
    """Accepts a token whose signature the platform has removed.

    Anyone can write such a token if the service is public, so the task must be signed as well.
    """

    name: ClassVar[str] = "cloud-run-iam"
    target: ClassVar[str] = "http"
    require_signature: ClassVar[bool] = True

    def refusal(self, request: Request) -> str | None:
        token = bearer_token(request)
        if token is None:
            return NO_TOKEN
        if token.count(".") == 2 and token.rpartition(".")[2] in REMOVED:
            return None
        return "token not checked by Cloud Run (its signature is still there: does the service require IAM?)"
