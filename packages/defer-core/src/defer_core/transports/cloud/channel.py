"""One channel to Cloud Tasks for each process, with one cached token: Google's own plug-in starts a thread for each
call."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from ...errors import TransportRefusedError, TransportUnavailableError
from .message import protobuf

HOST = "cloudtasks.googleapis.com:443"
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
TOKEN_MARGIN = 300.0
"""Seconds before its expiry at which a token is replaced."""
SERVICE = "/google.cloud.tasks.v2.CloudTasks/"
Metadata = tuple[tuple[str, str], ...]


class Token:
    """Google's credentials as the metadata of a call."""

    def __init__(self, credentials: Any = None) -> None:
        self._credentials = credentials
        self._metadata: Metadata = ()
        self._until = 0.0
        self._lock = threading.Lock()

    def metadata(self) -> Metadata:
        """Return the `authorization` of a call. Raises TransportRefusedError without credentials,
        TransportUnavailableError without a token."""
        if time.time() < self._until:
            return self._metadata
        with self._lock:
            if time.time() >= self._until:
                self._refresh()
            return self._metadata

    def _refresh(self) -> None:
        credentials = self._credentials = self._fresh()
        headers: dict[str, str] = {}
        credentials.apply(headers)
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        self._until = time.time() + max(_seconds_left(credentials) - TOKEN_MARGIN, 1.0)

    def _fresh(self) -> Any:
        import google.auth
        from google.auth import exceptions
        from google.auth.transport.requests import Request

        try:
            credentials = self._credentials or google.auth.default(scopes=SCOPES)[0]
            if not credentials.valid or _seconds_left(credentials) < TOKEN_MARGIN:
                credentials.refresh(Request())
        except exceptions.DefaultCredentialsError as error:
            raise TransportRefusedError(
                f"There are no Google credentials here: {error} On a laptop: `gcloud auth application-default login`."
            ) from error
        except exceptions.GoogleAuthError as error:
            raise TransportUnavailableError(f"Google gave no token: {error}") from error
        return credentials


def _seconds_left(credentials: Any) -> float:
    """Return the seconds until a token expires; google.auth has that as a naive datetime in UTC."""
    from datetime import timezone

    if credentials.expiry is None:
        return 3600.0
    return float(credentials.expiry.replace(tzinfo=timezone.utc).timestamp() - time.time())


class NoToken(Token):
    """No metadata, for an emulator."""

    def metadata(self) -> Metadata:
        return ()


class Connection:
    """A channel and the calls on it."""

    def __init__(self, host: str, token: Token, *, secure: bool, root_certificates: bytes | None = None) -> None:
        import grpc

        self.Error: type[Exception] = grpc.RpcError
        options = (
            ("grpc.primary_user_agent", "defer"),
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_retries", 0),  # the transport's own are enough, and these cost every call
        )
        if secure:
            self._channel = grpc.secure_channel(host, grpc.ssl_channel_credentials(root_certificates), options)
        else:
            self._channel = grpc.insecure_channel(host, options)
        pb = protobuf()
        self.create_task = self.stub(f"{SERVICE}CreateTask", pb.CreateTaskRequest, pb.Task)
        self.batch_create_tasks = self.stub(f"{SERVICE}BatchCreateTasks", pb.BatchCreateTasksRequest, pb.Operation)
        self._token = token
        self._routing: dict[str, Metadata] = {}

    def stub(self, path: str, request: Any, response: Any) -> Any:
        """Return a call by its full path."""
        return self._channel.unary_unary(
            path, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )

    def metadata(self, parent: str, field: str = "parent") -> Metadata:
        """Return the metadata of a call: the token, and the resource by which Google routes it."""
        routing = self._routing.get(parent)
        if routing is None:
            routing = self._routing[parent] = (("x-goog-request-params", f"{field}={quote(parent, safe='')}"),)
        return routing + self._token.metadata()

    def get_operation(self, name: str, timeout: float) -> Any:
        """Return the present state of a long-running operation."""
        pb = protobuf()
        get = self.stub("/google.longrunning.Operations/GetOperation", pb.GetOperationRequest, pb.Operation)
        return get(pb.GetOperationRequest(name=name), timeout, self.metadata(name, "name"))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class PerProcess:
    """One connection for each process, made on first use: neither a channel nor its threads survive a fork."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._made: dict[int, Connection] = {}

    def get(self) -> Connection:
        """Return this process's connection."""
        process = os.getpid()
        made = self._made.get(process)
        return made if made is not None else self._made.setdefault(process, self._connect())

    def close(self) -> None:
        """Close this process's connection, but not one of its parent's."""
        made = self._made.pop(os.getpid(), None)
        if made is not None:
            made.close()
