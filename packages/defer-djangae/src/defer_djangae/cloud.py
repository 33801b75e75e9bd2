"""What `djangae.tasks` gives: the Cloud Tasks client, and the paths of its queues. `google.*` is imported late."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from defer_core.queues import number

from .environment import is_production_environment, project_id

CLOUD_TASKS_PROJECT_SETTING = "CLOUD_TASKS_PROJECT_ID"
CLOUD_TASKS_LOCATION_SETTING = "CLOUD_TASKS_LOCATION"
CLOUD_TASKS_QUEUES_SETTING = "CLOUD_TASKS_QUEUES"
QUEUE_FIELDS = {
    "rate_per_second": ("rate_limits", "max_dispatches_per_second"),
    "rate_max_concurrent": ("rate_limits", "max_concurrent_dispatches"),
    "retry_max_attempts": ("retry_config", "max_attempts"),
}
"""The keys of an entry of CLOUD_TASKS_QUEUES, and the fields of a Queue that they are."""


def get_cloud_tasks_client() -> Any:
    """A `CloudTasksClient`: one a process on App Engine, else of TASKS_EMULATOR_HOST, which may be `defer-local`'s."""
    if is_production_environment():
        return _production_client(os.getpid())
    return _emulator_client(os.environ.get("TASKS_EMULATOR_HOST", "127.0.0.1:9022"))


@cache
def _production_client(process_id: int) -> Any:
    from google.cloud.tasks_v2 import CloudTasksClient

    return CloudTasksClient()


def _emulator_client(host: str) -> Any:
    import grpc
    from google.cloud.tasks_v2 import CloudTasksClient
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    return CloudTasksClient(transport=CloudTasksGrpcTransport(channel=grpc.insecure_channel(host)))


def cloud_tasks_project() -> str:
    """The project of the queues: CLOUD_TASKS_PROJECT_ID, else that of the environment."""
    from django.conf import settings

    return getattr(settings, CLOUD_TASKS_PROJECT_SETTING, None) or project_id()


def cloud_tasks_location() -> str:
    """The region of the queues. Raises ImproperlyConfigured where CLOUD_TASKS_LOCATION is not set."""
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    location = getattr(settings, CLOUD_TASKS_LOCATION_SETTING, None)
    if not location:
        raise ImproperlyConfigured(
            'CLOUD_TASKS_LOCATION is not set: say where the queues are, for example "europe-west1".'
        )
    return str(location)


def cloud_tasks_parent_path() -> str:
    """`projects/P/locations/L`. Raises ImproperlyConfigured."""
    return f"projects/{cloud_tasks_project()}/locations/{cloud_tasks_location()}"


def cloud_tasks_queue_path(queue_name: str, parent: str | None = None) -> str:
    """The full name of a queue, below `parent` or else the configured project and region."""
    return f"{parent or cloud_tasks_parent_path()}/queues/{queue_name}"


def ensure_required_queues_exist() -> None:
    """Create or update the queues of CLOUD_TASKS_QUEUES. Nothing calls this at start-up: deploys do (`defer_queues`).

    Raises ImproperlyConfigured for an entry that cannot be one, and what the client raises.
    """
    from django.conf import settings

    queues = [queue_of(entry) for entry in getattr(settings, CLOUD_TASKS_QUEUES_SETTING, None) or []]
    client = get_cloud_tasks_client() if queues else None
    for queue, fields in queues:
        from google.cloud.tasks_v2 import Queue
        from google.protobuf.field_mask_pb2 import FieldMask

        assert client is not None
        client.update_queue(queue=Queue(**queue), update_mask=FieldMask(paths=fields))


def queue_of(entry: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The fields of a Queue, and the paths of those that an entry sets. Raises ImproperlyConfigured."""
    from django.core.exceptions import ImproperlyConfigured

    name = entry.get("name", "")
    if not name or "/" in name:
        raise ImproperlyConfigured(f"CLOUD_TASKS_QUEUES has an entry named {name!r}: give the queue's short name.")
    queue: dict[str, Any] = {"name": cloud_tasks_queue_path(name), "rate_limits": {}, "retry_config": {}}
    paths = ["name"]
    for key, (group, field) in QUEUE_FIELDS.items():
        if key in entry:
            queue[group][field] = number(entry[key])
            paths.append(f"{group}.{field}")
    return queue, paths
