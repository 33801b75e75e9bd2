"""App Engine's bundled services: whether they can be called here."""

from __future__ import annotations

from .errors import ConfigError

TASK_QUEUE, DATASTORE = "taskqueue", "datastore_v3"


def check_reachable(service: str) -> None:
    """Raises ConfigError where nobody answers for a service: the SDK's own error is a bare AssertionError."""
    from google.appengine.api import apiproxy_stub_map

    if apiproxy_stub_map.apiproxy.GetStub(service) is None:
        raise ConfigError(
            f"App Engine's bundled services ({service}) cannot be reached from here. On App Engine: put "
            "`app_engine_apis: true` into app.yaml, and the application into `google.appengine.api.wrap_wsgi_app()`. "
            "In tests: activate `google.appengine.ext.testbed` and its stubs. Elsewhere: configure another transport "
            "and another store, such as 'cloud' and 'ndb'."
        )
