"""`INSTALLED_APPS = ["djangae.tasks"]` is the app `defer_django`."""

from typing import Any

from defer_djangae.starting import refuse_both, start
from defer_django import apps


class DjangaeTasksConfig(apps.DeferDjangoConfig):
    """The app `defer_django`, by the name that Djangae's had."""

    def __init__(self, app_name: str, app_module: Any) -> None:
        refuse_both("defer_django", "djangae.tasks")
        super().__init__(app_name, app_module)
        start()
