"""Google Cloud Tasks, over gRPC."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from ... import platform
from ...errors import ConfigError, TaskAlreadyExistsError, TransportError, TransportUnavailableError
from ...extras import require
from ...http_syntax import is_absolute
from ...task import Routing
from ..base import Message, Transport
from .batch import Answer, batched, pipelined
from .channel import HOST, SCOPES, Connection, NoToken, PerProcess, Token
from .errors import from_rpc
from .message import Target, build, short_name

EMULATORS = ("CLOUD_TASKS_EMULATOR_HOST", "TASKS_EMULATOR_HOST")
"""Environment variables with the `host:port` of a Cloud Tasks server that is not Google's."""
BACKOFF = (0.1, 0.3, 0.9)
"""Seconds before a call that found the queue unavailable is repeated, each times 0.5 to 1.5 at random."""


class CloudTasksTransport(Transport):
    """Sends tasks to App Engine targets (a path) or HTTP targets (an absolute URL, or a path on `base_url`).

    `project` and `location` default to GOOGLE_CLOUD_PROJECT (or CLOUD_TASKS_PROJECT_ID, or the project of the
    credentials) and CLOUD_TASKS_LOCATION. `service_account_email` (CLOUD_TASKS_SERVICE_ACCOUNT) and `audience`
    (CLOUD_TASKS_AUDIENCE) are for the OIDC token of HTTP targets. App Engine tasks go to `service` and `version`, which
    are this process's own (GAE_SERVICE, GAE_VERSION) unless `pin_version` is False. `timeout` is in seconds, for each
    call. `batch=False` sends each of many tasks in its own call. Raises ConfigError.
    """

    name: ClassVar[str] = "cloud"

    def __init__(
        self,
        *,
        project: str | None = None,
        location: str | None = None,
        base_url: str | None = None,
        service_account_email: str | None = None,
        audience: str | None = None,
        service: str | None = None,
        version: str | None = None,
        pin_version: bool = True,
        endpoint: str | None = None,
        emulator_host: str | None = None,
        credentials: Any = None,
        root_certificates: bytes | None = None,
        timeout: float = 20.0,
        batch: bool = True,
    ) -> None:
        require("cloud-tasks")
        environ = os.environ
        emulator = emulator_host or next((environ[name] for name in EMULATORS if environ.get(name)), None)
        self._endpoint, self._emulator, self._credentials = endpoint or HOST, emulator, credentials
        self._root_certificates, self._timeout = root_certificates, timeout
        pinned = environ if pin_version else {}
        self._batch = batch
        self.target = Target(
            parent=f"projects/{_project(project, emulator)}/locations/{_location(location, emulator)}",
            base_url=_checked_url(base_url),
            service=service or pinned.get("GAE_SERVICE"),
            version=version or (None if service else pinned.get("GAE_VERSION")),
            service_account_email=service_account_email or environ.get("CLOUD_TASKS_SERVICE_ACCOUNT"),
            audience=audience or environ.get("CLOUD_TASKS_AUDIENCE"),
            on_cloud_run=platform.on_cloud_run(),
        )
        self._connections = PerProcess(self._connect)

    def check(self, routing: Routing) -> None:
        build(Message(body=b"", routing=routing), self.target)

    def send(self, message: Message) -> str:
        request = build(message, self.target)
        answer = self._once(request)
        for pause in BACKOFF:
            if not isinstance(answer, TransportUnavailableError):
                break
            _sleep(pause)
            answer = _answer_to_repeat(self._once(request), request)
        if isinstance(answer, TransportError):
            raise answer
        return answer

    def send_many(self, messages: Sequence[Message]) -> list[str | TransportError]:
        """Send a hundred tasks in a call if the queue answers that at once, else many calls at a time."""
        requests, answers = self._many_once(messages)
        for pause in BACKOFF:
            again = [index for index, answer in answers.items() if isinstance(answer, TransportUnavailableError)]
            if not again:
                break
            _sleep(pause)
            found = pipelined(self._connections.get(), [requests[index] for index in again], self._timeout)
            answers.update((i, _answer_to_repeat(answer, requests[i])) for i, answer in zip(again, found, strict=True))
        return [answers[index] for index in range(len(messages))]

    def connection(self) -> Connection:
        """Return this process's connection (the administration of queues uses it too)."""
        return self._connections.get()

    def close(self) -> None:
        self._connections.close()

    # --- one call -----------------------------------------------------------------------------------------------------

    def _once(self, request: Any) -> Answer:
        connection = self._connections.get()
        try:
            task = connection.create_task(request, self._timeout, connection.metadata(request.parent))
        except connection.Error as error:
            return from_rpc(error, request)
        return short_name(task.name)

    def _many_once(self, messages: Sequence[Message]) -> tuple[dict[int, Any], dict[int, Answer]]:
        """Return the requests and the answers to them, by index; a message that cannot become a request has its
        error."""
        requests: dict[int, Any] = {}
        answers: dict[int, Answer] = {}
        for index, message in enumerate(messages):
            try:
                requests[index] = build(message, self.target)
            except TransportError as error:
                answers[index] = error
        connection = self._connections.get()
        if self._batch:
            answered, self._batch = batched(connection, requests, self._timeout)
            answers.update(answered)
        rest = [index for index in requests if index not in answers]
        found = pipelined(connection, [requests[index] for index in rest], self._timeout)
        answers.update(zip(rest, found, strict=True))
        return requests, answers

    # --- where --------------------------------------------------------------------------------------------------------

    def _connect(self) -> Connection:
        if self._emulator:
            return Connection(self._emulator, NoToken(), secure=False)
        token = Token(self._credentials)
        return Connection(self._endpoint, token, secure=True, root_certificates=self._root_certificates)


def _answer_to_repeat(answer: Answer, request: Any) -> Answer:
    """Return the answer to a repeated call: a name that is taken then is that of the first try, which reached the
    queue."""
    if isinstance(answer, TaskAlreadyExistsError) and request.task.name:
        return short_name(request.task.name)
    return answer


def _sleep(pause: float) -> None:
    time.sleep(pause * random.uniform(0.5, 1.5))


def _project(given: str | None, emulator: str | None) -> str:
    """Return the given project, that of the environment, or that of the credentials."""
    found = given or platform.project_of_environment()
    if found or emulator:
        return found or "local"
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        found = google.auth.default(scopes=SCOPES)[1]
    except DefaultCredentialsError:
        found = None
    if found is None:
        raise ConfigError(f"Cloud Tasks needs a project: {_how('project')}, or set {' or '.join(platform.PROJECTS)}.")
    return str(found)


def _location(given: str | None, emulator: str | None) -> str:
    """Return the location of the queues, as given or configured: the environment of Google Cloud does not have it."""
    found = given or os.environ.get("CLOUD_TASKS_LOCATION") or (emulator and "local")
    if not found:
        raise ConfigError(
            f"Cloud Tasks needs a location (`europe-west1`): {_how('location')}, or set CLOUD_TASKS_LOCATION. "
            "`gcloud tasks locations list` shows it."
        )
    return found


def _how(name: str) -> str:
    return f'configure(transport="cloud", transport_options={{"{name}": ...}})'


def _checked_url(url: str | None) -> str | None:
    if url is not None and not is_absolute(url):
        raise ConfigError(f"base_url is {url!r}: give the beginning of an absolute URL, such as https://shop.example.")
    return url
