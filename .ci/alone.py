"""Import every module of one package where nothing but its dependencies is installed, and run a task if it can.

python .ci/alone.py defer_core
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib import metadata

FRAMEWORKS = {"defer_core": ("django", "google.cloud", "google.appengine", "flask")}
FRAMEWORKS["defer_gae_handler"] = FRAMEWORKS["defer_local"] = FRAMEWORKS["defer_core"]
OPTIONAL = ("django", "google", "grpc", "jwt", "opentelemetry", "proto", "gcloudc", "django_tasks", "djangae", "pytest")
"""What a module of an adapter, or the suites of tests, may lack, and nothing else."""


def main(package: str) -> None:
    """Raises where something is wrong."""
    if package in ("defer_django", "defer_iteration"):
        set_up_django(package)
    importlib.import_module(package)
    loaded = [name for name in FRAMEWORKS.get(package, ()) if name in sys.modules]
    assert not loaded, f"import {package} loads {loaded}"
    skipped = [name for name in modules(package) if not imports(name)]
    run_a_task()
    if package == "defer_core":
        miss_extras()
    version = metadata.version(package.replace("_", "-"))
    print(f"{package} {version} works alone; without extras: {skipped or 'nothing'}")


def set_up_django(package: str) -> None:
    """The smallest Django project that has the package."""
    import django
    from django.conf import settings

    apps = [f"django.contrib.{name}" for name in ("auth", "contenttypes", "messages", "sessions", "admin")]
    apps += ["defer_django"] if package == "defer_django" else ["defer_django", "defer_iteration"]
    settings.configure(SECRET_KEY="k" * 50, INSTALLED_APPS=apps, DEFER={"TRANSPORT": "memory"}, DATABASES={})
    django.setup()


def modules(package: str) -> list[str]:
    """The names of all its modules, less those that are commands."""
    found = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.", onerror=lambda name: None)
    return [each.name for each in found if not each.name.endswith("__main__") and "._paths" not in each.name]


def imports(name: str) -> bool:
    """Whether a module can be imported without an extra. Raises what else is wrong with it."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in OPTIONAL:
            raise
        return False
    except Exception as error:
        if type(error).__module__.startswith("django."):
            return False
        raise
    return True


def run_a_task() -> None:
    """Defer a task into memory, and run it."""
    from defer_core import defer
    from defer_core.testing import drain, in_memory

    with in_memory() as transport:
        defer(print, "a task ran")
        assert drain(transport).done == 1


def miss_extras() -> None:
    """What is not installed here is named by its extra."""
    from defer_core import ConfigError, configure

    for settings, extra in (
        ({"transport": "cloud"}, "cloud-tasks"),
        ({"transport": "appengine"}, "appengine"),
        ({"store": "ndb"}, "datastore"),
    ):
        said = ""
        try:
            configure(**settings)
        except ConfigError as error:
            said = str(error)
        assert f"defer-core[{extra}]" in said, f"{settings} said {said!r}"


if __name__ == "__main__":
    main(sys.argv[1])
