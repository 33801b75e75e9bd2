"""`djangae.environment`: the project and version of this process. Settings import it, so it imports no settings."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from defer_core.spi import app_engine_environment


def application_id(default: str = "e~example") -> str:
    """Return the application id with its region's prefix, `e~project`."""
    return os.environ.get("GAE_APPLICATION", default)


def project_id(default: str = "example") -> str:
    """Return the Google Cloud project."""
    return os.environ.get("GOOGLE_CLOUD_PROJECT", default)


def is_production_environment() -> bool:
    """Return True on App Engine standard."""
    return app_engine_environment() == "standard"


def is_development_environment() -> bool:
    """Return True anywhere else."""
    return not is_production_environment()


def gae_service_name() -> str:
    """Return the App Engine service of this process."""
    return os.environ.get("GAE_SERVICE", "default")


def gae_version() -> str | None:
    """Return the App Engine version of this process."""
    return os.environ.get("GAE_VERSION")


def default_gcs_bucket_name() -> str:
    """Return the bucket that App Engine makes for a project."""
    return f"{project_id()}.appspot.com"


def default_app_host() -> str:
    """Return the host of the default version."""
    return f"{project_id()}.appspot.com"


def app_host() -> str:
    """Return the host of this version."""
    return f"{gae_version() or 'example'}-dot-{default_app_host()}"


@cache
def get_application_root() -> str:
    """Find the folder with `app.yaml`, else BASE_DIR.

    It is DJANGAE_APP_YAML_LOCATION, the script's folder, the current one, or one above them.
    """
    named = os.environ.get("DJANGAE_APP_YAML_LOCATION")
    starts = [Path(each).resolve() for each in (sys.path[0], ".") if each]
    candidates = ([Path(named)] if named else []) + [up for start in starts for up in (start, *start.parents)]
    for folder in candidates:
        if (folder / "app.yaml").exists():
            return str(folder)
    from django.conf import settings

    return str(settings.BASE_DIR)
