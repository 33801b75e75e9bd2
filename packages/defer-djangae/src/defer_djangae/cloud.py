"""`djangae.tasks`: the Cloud Tasks client, and the paths of its queues. `google.*` is imported late."""

from __future__ import annotations

import os
from contextlib import closing
from functools import cache
from typing import Any

from defer_core.errors import ConfigError
from defer_core.spi import CloudTasksTransport, QueueAdmin, parse_queue

from .environment import is_production_environment, project_id

CLOUD_TASKS_PROJECT_SETTING = "CLOUD_TASKS_PROJECT_ID"
CLOUD_TASKS_LOCATION_SETTING = "CLOUD_TASKS_LOCATION"
CLOUD_TASKS_QUEUES_SETTING = "CLOUD_TASKS_QUEUES"


def get_cloud_tasks_client() -> Any:
    """Return a `CloudTasksClient`: on App Engine one for each process, elsewhere one of the emulator."""
    if is_production_environment():
        return _production_client(os.getpid())
    import grpc
    from google.cloud.tasks_v2 import CloudTasksClient
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    return CloudTasksClient(transport=CloudTasksGrpcTransport(channel=grpc.insecure_channel(_emulator_host())))


@cache
def _production_client(process_id: int) -> Any:
    from google.cloud.tasks_v2 import CloudTasksClient

    return CloudTasksClient()


def _emulator_host() -> str:
    """Return `host:port` of the emulator, which may be `defer-local --grpc`."""
    return os.environ.get("TASKS_EMULATOR_HOST", "127.0.0.1:9022")


def cloud_tasks_project() -> str:
    """Return the project of the queues: CLOUD_TASKS_PROJECT_ID, else that of the environment."""
    from django.conf import settings

    return getattr(settings, CLOUD_TASKS_PROJECT_SETTING, None) or project_id()


def cloud_tasks_location() -> str:
    """Return the region of the queues. Raises ImproperlyConfigured if CLOUD_TASKS_LOCATION is not set."""
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    location = getattr(settings, CLOUD_TASKS_LOCATION_SETTING, None)
    if not location:
        raise ImproperlyConfigured(
            'CLOUD_TASKS_LOCATION is not set: name the region of the queues, for example "europe-west1".'
        )
    return str(location)


def cloud_tasks_parent_path() -> str:
    """Return `projects/P/locations/L`. Raises ImproperlyConfigured."""
    return f"projects/{cloud_tasks_project()}/locations/{cloud_tasks_location()}"


def cloud_tasks_queue_path(queue_name: str, parent: str | None = None) -> str:
    """Return the full name of a queue, below `parent` or else the configured project and region."""
    return f"{parent or cloud_tasks_parent_path()}/queues/{queue_name}"


def ensure_required_queues_exist() -> None:
    """Create or update the queues of CLOUD_TASKS_QUEUES. Start-up does not call this: deploy with `defer_queues`.

    Raises ImproperlyConfigured for an invalid entry, and TransportError.
    """
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    try:
        queues = [parse_queue(entry) for entry in getattr(settings, CLOUD_TASKS_QUEUES_SETTING, None) or []]
    except ConfigError as error:
        raise ImproperlyConfigured(f"CLOUD_TASKS_QUEUES: {error}") from error
    if not queues:
        return
    transport = CloudTasksTransport(
        project=cloud_tasks_project(),
        location=cloud_tasks_location(),
        emulator_host=None if is_production_environment() else _emulator_host(),
    )
    with closing(transport):
        admin = QueueAdmin(transport)
        for queue in queues:
            admin.update(queue)
