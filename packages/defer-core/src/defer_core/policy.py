"""Which callables may be deferred and run: an allow-list, and a list of those that no project means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from typing import Any

from .errors import CallableForbiddenError

FORBIDDEN = (
    # run a program
    "os.system", "os.popen", "os.exec*", "os.spawn*", "os.posix_spawn*", "os.startfile", "os.fork*", "posix.system",
    "posix.exec*", "posix.spawn*", "posix.posix_spawn*", "posix.fork*", "nt.system", "nt.exec*", "nt.spawn*",
    "nt.startfile", "subprocess.*", "_posixsubprocess.*", "asyncio.subprocess.*", "pty.*", "platform.popen",
    "webbrowser.*",
    # end or disturb this one
    "os.kill*", "os.abort", "os._exit", "posix.kill*", "posix.abort", "posix._exit", "nt.kill", "nt.abort", "nt._exit",
    "signal.*", "_signal.*", "sys.exit", "sys.settrace", "sys.setprofile", "builtins.breakpoint", "builtins.input",
    # run text or bytes as code
    "builtins.eval", "builtins.exec", "builtins.compile", "builtins.__import__", "builtins.code", "builtins.function",
    "types.CodeType", "types.FunctionType", "code.*", "codeop.*", "runpy.*", "timeit.*", "pdb.*", "bdb.*",
    "profile.run*",
    "cProfile.run*", "trace.*", "importlib.*", "_frozen_importlib*", "_imp.*", "pkgutil.*", "zipimport.*", "ctypes.*",
    "_ctypes.*", "cffi.*", "pickle.*", "_pickle.*", "marshal.*", "shelve.*", "dill.*", "cloudpickle.*",
    "yaml.unsafe_load*", "pip.*", "ensurepip.*",
    # reach everything else
    "builtins.getattr", "builtins.setattr", "builtins.delattr", "builtins.globals", "builtins.locals", "builtins.vars",
    "builtins.open", "io.open*", "_io.open*",
)  # fmt: skip
"""Patterns of callables that no project means to run from a queue."""
OWN = ("defer_iteration.*.run_*", "defer_django.tasks.run")
"""Patterns of our own packages' tasks: an allow-list holds for what these call in turn."""
Known = tuple[str, Any, str, str]
"""`module:name`, what is there, module and name."""
_CACHE = 4096


class Policy:
    """Says of `module:qualname` whether it may be deferred and run.
    Patterns are those of a shell, over `module.qualname`."""

    def __init__(self, allowed: Sequence[str] | None = None, forbidden: Sequence[str] | None = None) -> None:
        self._allowed = None if allowed is None else _compiled([*allowed, *OWN])
        self._allowed_text = ", ".join(allowed or ())
        self._forbidden = _compiled(FORBIDDEN if forbidden is None else forbidden)
        self._passed: set[str] = set()
        self.known: dict[Any, Known] = {}
        """What has passed and been found at the top of a module: by the name or the function that it was sought by."""

    def check(self, name: str) -> None:
        """Raises CallableForbiddenError for a callable that the configuration refuses."""
        if name in self._passed:
            return
        if self._allowed is not None and not self._allowed.match(name.replace(":", ".")):
            message = f"{name} is not among the configured `callables` ({self._allowed_text})."
            raise CallableForbiddenError(message, name=name)
        self.check_not_forbidden(name)
        if len(self._passed) < _CACHE:
            self._passed.add(name)

    def keep(self, key: Any, known: Known) -> None:
        """Remember what has passed and been found."""
        if len(self.known) < _CACHE:
            self.known[key] = known

    def check_not_forbidden(self, name: str) -> None:
        """Raises CallableForbiddenError for one of the forbidden;
        the allow-list is not asked (for parts of a value)."""
        if self._forbidden is not None and self._forbidden.match(name.replace(":", ".")):
            message = f"{name} may not be deferred or run: it is among the `forbidden_callables`, which is a setting."
            raise CallableForbiddenError(message, name=name)


def _compiled(patterns: Sequence[str] | None) -> re.Pattern[str] | None:
    if patterns is None:
        return None
    return re.compile("|".join(translate(each.replace(":", ".")) for each in patterns) or r"(?!)")
