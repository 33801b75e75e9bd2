"""OIDC tokens for HTTP targets, like Google's, signed with a key that lies in the queue's file."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from defer_core.spi import clock

from ..queue import DurableQueue
from ..queued import QueuedTask
from .messages import Task

LIFETIME = 3600
"""Seconds for which a token is valid."""


def publish(queue: DurableQueue, issuer: str) -> dict[str, Any]:
    """Write the issuer of this queue's tokens, and make its key at first use. Return the JSON Web Key Set."""
    with queue.file.writing() as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('issuer', ?)", (issuer,))
        if connection.execute("SELECT 1 FROM meta WHERE key = 'issuer_key'").fetchone() is None:
            connection.execute("INSERT INTO meta VALUES ('issuer_key', ?)", (_new_key(),))
    _, key, key_id = _issuer(queue)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {"keys": [public | {"kid": key_id, "alg": "RS256", "use": "sig"}]}


def authorized(task: QueuedTask, queue: DurableQueue) -> QueuedTask:
    """Return a task with the token that it asks for, new at each attempt; it replaces a header of the task's own."""
    request = Task.FromString(task.proto or b"").http_request
    if not request.HasField("oidc_token"):
        return task
    token = _signed(queue, request.oidc_token.service_account_email, request.oidc_token.audience or request.url)
    headers = {name: value for name, value in task.routing.headers.items() if name.lower() != "authorization"}
    routing = replace(task.routing, headers={**headers, "Authorization": f"Bearer {token}"})
    return replace(task, routing=routing)


def _signed(queue: DurableQueue, email: str, audience: str) -> str:
    issuer, key, key_id = _issuer(queue)
    now = int(clock.now())
    subject = str(int(hashlib.sha256(email.encode()).hexdigest(), 16))[:21]
    claims = {
        "iss": issuer,
        "aud": audience,
        "azp": subject,
        "sub": subject,
        "email": email,
        "email_verified": True,
        "iat": now,
        "exp": now + LIFETIME,
    }
    return str(jwt.encode(claims, key, algorithm="RS256", headers={"kid": key_id}))


def _issuer(queue: DurableQueue) -> tuple[str, RSAPrivateKey, str]:
    found = dict(queue.file.connection().execute("SELECT key, value FROM meta").fetchall())
    return found["issuer"], *_loaded(found["issuer_key"])


@lru_cache(maxsize=8)
def _loaded(pem: str) -> tuple[RSAPrivateKey, str]:
    """Load a key; return it with its id."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key, hashlib.sha256(der).hexdigest()[:40]


def _new_key() -> str:
    return (
        generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )
