"""The door of a Cloud Run service that requires authentication: the platform has checked the caller already."""

from __future__ import annotations

from typing import ClassVar

from ..request import Request
from .base import Door
from .bearer import bearer_token

REMOVED = frozenset({"SIGNATURE_REMOVED_BY_GOOGLE", ""})
"""What Cloud Run leaves of a token's signature once it has checked it."""


class CloudRunIamDoor(Door):
    """Opens to a token whose signature the platform has taken away. Anybody could write such a token where the service
    is public, so the task itself must be signed too."""

    name: ClassVar[str] = "cloud-run-iam"
    target: ClassVar[str] = "http"
    require_signature: ClassVar[bool] = True

    def admits(self, request: Request) -> bool:
        token = bearer_token(request)
        return token is not None and token.count(".") == 2 and token.rpartition(".")[2] in REMOVED
