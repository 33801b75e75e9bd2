"""The module that runs as `__main__`: the name by which another process can import it, if there is one."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib import import_module
from importlib.machinery import PathFinder
from types import ModuleType

_TYPED = "django.core.management.commands.shell"
"""The command whose `manage.py shell -c` runs the given text as if it were its own."""
MAIN = frozenset({"__main__", "__mp_main__", _TYPED})
"""The names of that module, in this process and in a child of `multiprocessing`."""
REFUSAL = (
    "it is in `__main__`, which is another module in the process that runs it: move it to one that can be imported."
)


def name_for_others(module: str) -> str:
    """Return the name of a module in any process; `__main__` if it has no other."""
    if module not in MAIN:
        return module
    return (module != _TYPED and _importable()) or "__main__"


def module_named(name: str) -> ModuleType:
    """Import a module; one that runs as `__main__` here is not run a second time."""
    if name not in sys.modules and name == _importable():
        return sys.modules["__main__"]
    return import_module(name)


def loaded(name: str) -> ModuleType | None:
    """Return a module if it is imported or runs as `__main__`, else None."""
    return sys.modules.get(name) or (sys.modules.get("__main__") if name == _importable() else None)


def _importable() -> str | None:
    """Return the name by which `__main__` is certainly the same file, else None: it was started by that name (`python
    -m`), or is in a folder of the path. What is typed at a prompt is in no file."""
    main = sys.modules.get("__main__")
    if main is None or hasattr(sys, "ps1"):
        return None
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return None if spec.name in MAIN else str(spec.name)
    return _found(getattr(main, "__file__", None) or "", tuple(sys.path))


@lru_cache(maxsize=16)
def _found(file: str, path: tuple[str, ...]) -> str | None:
    """Return the module name of a file in a folder of the path, else None. Nothing is imported."""
    name, extension = os.path.splitext(os.path.basename(file))
    if extension != ".py" or "." in name or name in sys.stdlib_module_names:
        return None
    found = PathFinder.find_spec(name, path)
    try:
        return name if found and found.origin and os.path.samefile(found.origin, file) else None
    except OSError:
        return None
