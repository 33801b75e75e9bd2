"""Where this process runs: the only module that reads it from the environment."""

from __future__ import annotations

import os
import sys

from .errors import ConfigError

TASK_QUEUE, DATASTORE = "taskqueue", "datastore_v3"
"""App Engine's bundled services that defer uses, by the SDK's names."""
PROJECTS = ("GOOGLE_CLOUD_PROJECT", "CLOUD_TASKS_PROJECT_ID")
"""Environment variables with the Google Cloud project."""
_EMULATED = ("localdev", "development")
"""Values of GAE_ENV that emulators and Djangae's sandbox set; App Engine's own are `standard` and `flex`."""


def app_engine_environment() -> str:
    """Return App Engine's environment, `standard` or `flex`; on any other platform an empty string."""
    environment = os.environ.get("GAE_ENV", "")
    return "" if environment in _EMULATED else environment


def on_app_engine() -> bool:
    """Return True on App Engine, False under an emulator of it."""
    return app_engine_environment() != ""


def on_cloud_run() -> bool:
    """Return True on Cloud Run."""
    return bool(os.environ.get("K_SERVICE"))


def on_google_cloud() -> bool:
    """Return True on App Engine or Cloud Run."""
    return on_app_engine() or on_cloud_run()


def project_of_environment() -> str | None:
    """Return the Google Cloud project that the environment names, else None."""
    return next((os.environ[name] for name in PROJECTS if os.environ.get(name)), None)


def on_development_server() -> bool:
    """Return True in a Django project whose settings are loaded and have `DEBUG` on."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    return settings is not None and settings.configured and bool(settings.DEBUG)


def refuse_on_google_cloud(what: str) -> None:
    """Raise ConfigError on App Engine and Cloud Run."""
    if on_google_cloud():
        raise ConfigError(
            f"{what} keeps its tasks on one machine's disk, so it is refused on Google Cloud (GAE_ENV, K_SERVICE)."
        )


def bundled_service_answers(service: str) -> bool:
    """Return True if one of App Engine's bundled services can be called here."""
    from google.appengine.api import apiproxy_stub_map

    return apiproxy_stub_map.apiproxy.GetStub(service) is not None


def require_bundled_service(service: str) -> None:
    """Raise ConfigError unless the service can be called: the SDK's own error is a bare AssertionError."""
    if not bundled_service_answers(service):
        raise ConfigError(
            f"App Engine's bundled services ({service}) cannot be reached from here. On App Engine: put "
            "`app_engine_apis: true` into app.yaml, and the application into `google.appengine.api.wrap_wsgi_app()`. "
            "In tests: activate `google.appengine.ext.testbed` and its stubs. Elsewhere: configure another transport "
            "and another store, such as 'cloud' and 'ndb'."
        )
