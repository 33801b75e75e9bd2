"""Which callables may be deferred and run: an allow-list, and a list of those that no project runs from a queue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from typing import Any

from ..errors import CallableForbiddenError
from ..text import one_line

_MODULES = """
    subprocess _posixsubprocess _winapi pty webbrowser antigravity multiprocessing _pyrepl _osx_support _aix_support
    code codeop runpy timeit pdb bdb trace cProfile doctest pydoc rlcompleter annotationlib logging.config
    importlib _imp pkgutil zipimport modulefinder site pip ensurepip venv zipapp distutils setuptools pkg_resources
    pickle _pickle marshal shelve dill cloudpickle jsonpickle ctypes _ctypes cffi tkinter _tkinter turtle idlelib
    lib2to3 signal _signal faulthandler atexit _thread defer_core.config
    defer_core.wire.callables django.utils.module_loading
""".split()
"""Modules whose whole purpose is running a program, or text as code; or that change this process as a whole."""
_PROGRAMS = """
    os.system os.popen os.exec* os._exec* os.spawn* os._spawn* os.posix_spawn* os.startfile os.fork* posix.system
    posix.exec* posix.spawn* posix.posix_spawn* posix.fork* nt.system nt.exec* nt.spawn* nt.startfile
    asyncio.*subprocess* asyncio.unix_events.*Subprocess* platform.popen platform._syscmd_* uuid._get_command*
    uuid._popen imaplib.IMAP4_stream* http.server.CGI* mailcap.* pipes.Template* _bootsubprocess.*
    django.core.management.utils.popen_*
"""
"""Callables that run a program."""
_DISTURBING = """
    os.kill* os.abort os._exit posix.kill* posix.abort posix._exit nt.kill nt.abort nt._exit sys.exit sys.set*
    sys.call_tracing sys.*hook _sitebuiltins.* threading.set* builtins.breakpoint builtins.input resource.set*
"""
"""Callables that end or disturb this process."""
_CODE = """
    builtins.eval builtins.exec builtins.compile builtins.__import__ builtins.code builtins.function types.CodeType
    types.FunctionType profile.run* profile.Profile profile.Profile.* _frozen_importlib* imp.load*
    dataclasses._create_fn dataclasses._FuncBuilder* gettext.c2py inspect._signature_fromstr inspect.get_annotations
    inspect._main optparse.Values* typing.ForwardRef* typing.get_type_hints typing._eval_type
    typing.evaluate_forward_ref unittest.main* unittest.loader.* unittest.mock._importer unittest.mock._*signature
    xml.sax.make_parser xml.sax._create_parser *warnings._getcategory encodings.search_function copyreg.pickle
    copyreg.add_extension yaml.load* yaml.unsafe_load* yaml.full_load* test.support.*
    django.utils.log.configure_logging
"""
"""Callables that run text or bytes as code, or import what they name."""
_REACHING = """
    builtins.getattr builtins.setattr builtins.delattr builtins.globals builtins.locals builtins.vars builtins.open
    io.open* _io.open*
"""
"""Callables that reach everything else."""
FORBIDDEN = (*(f"{module}.*" for module in _MODULES), *" ".join((_PROGRAMS, _DISTURBING, _CODE, _REACHING)).split())
"""Patterns of callables that no project means to run from a queue: those of the standard library that run a program, or
text as code, that is given as an argument (by `subprocess`, `os.system`, `exec`, `eval`, `__import__`). Such a list is
never complete; only an allow-list is safe."""
OWN = ("defer_iteration.tasks.run_*", "defer_django.tasks.run")
"""Patterns of our own packages' tasks: the allow-list applies to what these call in turn."""
Known = tuple[str, Any, str, str]
"""`module:name`, the object found, module and name."""
_CACHE = 4096
_LONGEST = 500
"""Characters of a name that is remembered: the sender of a body may choose it."""


class Policy:
    """Decides whether a `module:qualname` may be deferred and run. Patterns are those of a shell, over
    `module.qualname`."""

    def __init__(self, allowed: Sequence[str] | None = None, forbidden: Sequence[str] | None = None) -> None:
        self._allowed = None if allowed is None else _compiled([*allowed, *OWN])
        self._allowed_text = ", ".join(allowed or ())
        self._forbidden = _compiled(FORBIDDEN if forbidden is None else forbidden)
        self._allowed_names: set[str] = set()
        self.known: dict[Any, Known] = {}
        """What was allowed and found at the top of a module, by the name or the function that was looked up."""

    def check(self, name: str) -> None:
        """Raise CallableForbiddenError for a callable that the configuration refuses."""
        if name in self._allowed_names:
            return
        if not self.may_import(name):
            message = f"{one_line(name)} is not among the configured `callables` ({self._allowed_text})."
            raise CallableForbiddenError(message, name=name)
        self.check_not_forbidden(name)
        if len(self._allowed_names) < _CACHE and len(name) <= _LONGEST:
            self._allowed_names.add(name)

    @property
    def is_allow_list(self) -> bool:
        """True if only what is listed may be deferred and run."""
        return self._allowed is not None

    def may_import(self, name: str) -> bool:
        """Return True if a body may cause the import of the module of this name: the allow-list applies to values,
        too."""
        return self._allowed is None or self._allowed.match(name.replace(":", ".")) is not None

    def keep(self, key: Any, known: Known) -> None:
        """Remember what was allowed and found."""
        if len(self.known) < _CACHE and len(known[0]) <= _LONGEST:
            self.known[key] = known

    def check_not_forbidden(self, name: str) -> None:
        """Raise CallableForbiddenError for a forbidden callable; the allow-list does not apply (to parts of a
        value)."""
        if self._forbidden is not None and self._forbidden.match(name.replace(":", ".")):
            why = "it is among the `forbidden_callables` (a setting)"
            raise CallableForbiddenError(f"{one_line(name)} may not be deferred or run: {why}.", name=name)


def _compiled(patterns: Sequence[str] | None) -> re.Pattern[str] | None:
    if patterns is None:
        return None
    return re.compile("|".join(translate(each.replace(":", ".")) for each in patterns) or r"(?!)")
