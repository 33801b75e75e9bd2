"""`djangae.tasks`: the Cloud Tasks client and the paths of its queues."""

from defer_djangae.cloud import (
    CLOUD_TASKS_LOCATION_SETTING,
    CLOUD_TASKS_PROJECT_SETTING,
    cloud_tasks_location,
    cloud_tasks_parent_path,
    cloud_tasks_project,
    cloud_tasks_queue_path,
    ensure_required_queues_exist,
    get_cloud_tasks_client,
)

__all__ = [
    "CLOUD_TASKS_LOCATION_SETTING",
    "CLOUD_TASKS_PROJECT_SETTING",
    "cloud_tasks_location",
    "cloud_tasks_parent_path",
    "cloud_tasks_project",
    "cloud_tasks_queue_path",
    "ensure_required_queues_exist",
    "get_cloud_tasks_client",
]
