"""`INSTALLED_APPS = ["djangae"]` is the app `defer_iteration`."""

from typing import Any

from defer_djangae.starting import refuse_both, start
from defer_iteration import apps


class DjangaeConfig(apps.DeferIterationConfig):
    """The app `defer_iteration`, by the name that Djangae's had."""

    def __init__(self, app_name: str, app_module: Any) -> None:
        refuse_both("defer_iteration", "djangae")
        super().__init__(app_name, app_module)
        start()
