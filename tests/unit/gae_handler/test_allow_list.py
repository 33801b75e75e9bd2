"""What strangers may write where nothing is signed: an allow-list holds for whatever a body can name."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import functools
import logging.config
import os
import pickle
import subprocess
import sys
import uuid
import zoneinfo
from collections.abc import Iterator
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import Any

import msgpack
import pytest
from unit.gae_handler import stall

import defer_core
from defer_core import config, defer
from defer_core.errors import CallableError, CallableForbiddenError
from defer_core.spi import State, clock
from defer_core.testing import drain, in_memory
from defer_core.wire import envelope, frame
from defer_core.wire import types as ext
from defer_core.wire.callables import true_name
from defer_gae_handler import Authenticator, Request, handle

STALL = "unit.gae_handler.stall"


class Wide(Authenticator):
    """Trusts whoever comes."""

    name = "wide"

    def accepts(self, request: Request) -> bool:
        return True


def body(call: Any, **fields: Any) -> bytes:
    """A call as a stranger writes it: `[callable, args, kwargs]`, unsigned."""
    sealed = envelope.Envelope(payload=msgpack.packb(call), created=clock.now(), **fields)
    return frame.wrap(envelope.encode(sealed))


def packed(code: int, plain: Any) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(plain))


def post(data: bytes) -> int:
    return handle(Request("POST", "/", {"X-AppEngine-TaskName": "t"}, "", lambda size: data[:size])).status


def worker(*callables: str, **settings: Any) -> Any:
    defaults = {"callables": callables or None, "authenticators": [Wide()], "grace": 0.0, "allow_pickle": False}
    return in_memory(**{**defaults, **settings})


def letters() -> list[str]:
    """The errors of the dead letters there are, in a line each."""
    store = config.current().the_store
    assert store is not None
    return [each.last_error.strip().rpartition("\n")[2] for each in store.list(State.DEAD)]


@pytest.fixture(autouse=True)
def _calls() -> Iterator[None]:
    stall.calls.clear()
    stall.cached.cache_clear()
    yield
    stall.calls.clear()
    stall.Basket.rebate = 0


def run_and_refused(data: bytes) -> str:
    """Post a body that must not run. Returns the error of its dead letter."""
    before = len(letters())
    assert post(data) == 200 and stall.calls == []
    assert len(letters()) == before + 1
    return letters()[-1]


# --- 1. the callable of a task ----------------------------------------------------------------------------------------

ROUND_ABOUT = [
    ["os:getpid", [], {}],
    [f"{STALL}:defer_core.config.active._explicit.policy._allowed_names.update", [["os:system", "posix:system"]], {}],
    [f"{STALL}:ok.__globals__.clear", [], {}],
    [f"{STALL}:calls.append", [1], {}],
    [f"{STALL}:push", [1], {}],
    [f"{STALL}:hidden", [], {}],
    [f"{STALL}:deeper", [], {}],
    [f"{STALL}:getter", [{"a": 1}], {}],
    [f"{STALL}:Basket.contents.append", [1], {}],
    [f"{STALL}:os.system", ["true"], {}],
    [f"{STALL}:functools.sys.exit", [], {}],
    [f"{STALL}:logging.getLogger", [], {}],
    [f"{STALL}:Basket.log.shutdown", [], {}],
    [f"{STALL}:defer_core.configure", [], {"callables": None}],
    [f"{STALL}:defer_core.config.reset", [], {}],
    [f"{STALL}:ok.__class__", [], {}],
    [f"{STALL}:ok.__setattr__", ["x", 1], {}],
    [f"{STALL}:ok.__call__", [], {}],
    [f"{STALL}:Basket.__setattr__", [1, "x", 1], {}],
    [f"{STALL}:Basket.__class__.__setattr__", [packed(ext.CALLABLE, f"{STALL}:Basket"), "rebate", 100], {}],
    [f"{STALL}:Basket.__dict__.get", ["x"], {}],
    [f"{STALL}:Basket.__init__.__globals__.clear", [], {}],
    [f"{STALL}:__builtins__.get", ["eval"], {}],
    [f"{STALL}:__loader__.get_data", ["/etc/passwd"], {}],
    [f"{STALL}:__spec__.loader.exec_module", [1], {}],
    [f"{STALL}:cached.cache_clear", [], {}],
    [f"{STALL}:part.func.__globals__.clear", [], {}],
    [["partial", f"{STALL}:calls.append", [1], {}], [], {}],
    [["partial", ["partial", f"{STALL}:push", [1], {}], [], {}], [], {}],
    [["method", [1], "append"], [2], {}],
    [["method", packed(ext.CALLABLE, f"{STALL}:basket"), "__setattr__"], ["rebate", 1], {}],
    [["method", packed(ext.ENUM, [f"{STALL}:Colour", "RED"]), "__setattr__"], ["x", 1], {}],
    [["method", packed(ext.CALLABLE, f"{STALL}:cached"), "cache_clear"], [], {}],
    [["method", packed(ext.CALLABLE, f"{STALL}:part"), "__setstate__"], [1], {}],
    [["instance", packed(ext.CALLABLE, f"{STALL}:part")], [], {}],
    [["instance", packed(ext.CALLABLE, f"{STALL}:getter")], [{}], {}],
]


@pytest.mark.parametrize("call", ROUND_ABOUT, ids=lambda call: str(call[0])[-60:])
def test_there_is_no_way_round_an_allow_list(call: Any) -> None:
    with worker(f"{STALL}.*"):
        run_and_refused(body(call))
        assert config.current().callables == (f"{STALL}.*",)
        assert not any(name.startswith("os") for name in config.current().policy._allowed_names)
    assert stall.ok.__globals__["calls"] is stall.calls and stall.Basket.rebate == 0


@pytest.mark.parametrize(
    "argument",
    [
        packed(ext.CALLABLE, f"{STALL}:calls.append"),
        packed(ext.CALLABLE, f"{STALL}:os.system"),
        packed(ext.CALLABLE, ["partial", f"{STALL}:push", [1], {}]),
        packed(ext.CALLABLE, ["instance", packed(ext.CALLABLE, f"{STALL}:getter")]),
        packed(ext.TUPLE, [packed(ext.CALLABLE, f"{STALL}:ok.__globals__.get")]),
    ],
)
def test_nor_is_there_one_as_an_argument(argument: Any) -> None:
    with worker(f"{STALL}.*"):
        run_and_refused(body([f"{STALL}:ok", [argument], {}]))


@pytest.mark.parametrize(
    ("func", "expected"),
    [
        (stall.ok, (7,)),
        (stall.cached, ("cached", 7)),
        (stall.wrapped, ("wrapped", 7)),
        (stall.Basket, ("Basket", 7)),
        (stall.Basket.of, ("of", 7)),
        (stall.Basket.weigh, ("weigh", 7)),
        (stall.Basket.Lid.close, ("close", 7)),
        (functools.partial(stall.ok, 1), (1, 7)),
    ],
)
def test_what_is_on_the_list_goes_on_running(func: Any, expected: Any) -> None:
    with worker(f"{STALL}.*"):
        defer(func, 7)
        assert drain().done == 1
    assert stall.calls[-1] == expected


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        (f"{STALL}:basket.add", ("add", 7)),
        (f"{STALL}:basket", ("called", 7)),
        (f"{STALL}:part", (1, 7)),
        (["method", packed(ext.CALLABLE, f"{STALL}:basket"), "add"], ("add", 7)),
        (["instance", packed(ext.CALLABLE, f"{STALL}:basket")], ("called", 7)),
    ],
)
def test_and_what_is_at_the_top_of_a_module_on_it(ref: Any, expected: Any) -> None:
    with worker(f"{STALL}.*"):
        assert post(body([ref, [7], {}])) == 200
    assert stall.calls == [expected]


def test_a_name_leads_through_no_module_nor_a_dunder_without_a_list_either() -> None:
    with worker():
        for name in ("ok.__globals__.clear", "defer_core.config.reset", "os.getcwd"):
            assert "leads through" in run_and_refused(body([f"{STALL}:{name}", [], {}]))


def test_a_module_that_exits_while_it_is_imported_is_not_found(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaves_at_once.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with worker():
        assert "cannot be found" in run_and_refused(body(["leaves_at_once:x", [], {}]))


# --- 2. pickles of older libraries ------------------------------------------------------------------------------------


class Calls:
    """Calls something while it is unpickled."""

    def __init__(self, func: Any, *args: Any) -> None:
        self.reduced = func, args

    def __reduce__(self) -> Any:
        return self.reduced


def legacy_worker(*callables: str) -> Any:
    return worker(*callables, keys=["k" * 32], accept_legacy_pickles=True)


def on_the_way(*values: Any) -> bytes:
    """A task of `ok`, and what is unpickled on the way to it."""
    return pickle.dumps((stall.ok, values, {}))


def naming(module: str, name: str) -> bytes:
    """A task of whatever has that name."""
    texts = b"".join(pickle.BINUNICODE + len(each).to_bytes(4, "little") + each.encode() for each in (module, name))
    return b"\x80\x04(" + texts + pickle.STACK_GLOBAL + b")}t."


def old(module: str, name: str, *lines: bytes) -> bytes:
    """A task of `ok` with the value that something gives for arguments, in Python 2's form."""
    call = pickle.GLOBAL + f"{module}\n{name}\n".encode() + pickle.MARK + b"".join(lines) + b"tR"
    return b"(" + pickle.GLOBAL + f"{STALL}\nok\n".encode() + b"(" + call + b"t(dt."


def changing(name: str, attribute: str) -> bytes:
    """A task of `ok`, on the way to which an attribute of something in the module is set."""
    target = pickle.GLOBAL + f"{STALL}\n{name}\n".encode()
    state = b"(N(V" + attribute.encode() + b"\nI100\ndt" + pickle.BUILD
    return b"(" + pickle.GLOBAL + f"{STALL}\nok\n".encode() + b"(" + target + state + b"t(dt."


member = defer_core.wire.legacy.invoke_member
PICKLES = {
    "a function": on_the_way(Calls(os.getcwd)),
    "dictConfig": on_the_way(Calls(logging.config.dictConfig, {"version": 1})),
    "configure": pickle.dumps((defer_core.configure, (), {"authenticators": [], "callables": None})),
    "configure on the way": on_the_way(Calls(defer_core.configure)),
    "reset on the way": on_the_way(Calls(config.reset)),
    "resolve on the way": on_the_way(Calls(defer_core.wire.callables.resolve, f"{STALL}:calls.append")),
    "an attribute": on_the_way(Calls(getattr, stall.ok, "__globals__")),
    "a slot": on_the_way(Calls(getattr, stall.ok, "__setattr__")),
    "a member on the way": on_the_way(Calls(member, stall.ok, "__getattribute__", "__globals__")),
    "a member of a list": pickle.dumps((member, (stall.calls, "append", 1), {})),
    "a member of a function": pickle.dumps((member, (stall.ok, "__setattr__", "x", 1), {})),
    "an import": naming("filecmp", "dircmp"),
    "a name in a module": naming(STALL, "calls.append"),
    "a name through a module": naming(STALL, "os.getcwd"),
    "globals": naming(STALL, "ok.__globals__.clear"),
    "builtins": naming("collections", "__builtins__"),
    "an attribute of a function is set": changing("ok", "price"),
    "an attribute of a class is set": changing("Basket", "rebate"),
    "an attribute of an instance is set": changing("basket", "rebate"),
    "a range": on_the_way(range(10)),
    "many bytes": old("__builtin__", "bytearray", b"I1000000000000\n"),
    "eval of Python 2": old("__builtin__", "eval", b"V1\n"),
    "a program of Python 2": old("commands", "getoutput", b"Vtrue\n"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_of_an_older_library_is_held_by_the_list(name: str) -> None:
    names = (f"{STALL}.ok", f"{STALL}.Basket*")
    with legacy_worker(*names):
        run_and_refused(PICKLES[name])
        assert config.current().callables == names
    assert "filecmp" not in sys.modules
    assert (stall.Basket.rebate, stall.basket.rebate) == (0, 0) and stall.ok.__dict__ == {}


NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)
VALUES = [
    None, True, 7, 1.5, "text", b"bytes", bytearray(b"b"), 2**80, 1j, (1, [2], {"a": 3}), {1, 2}, frozenset({1}), NOW,
    NOW.date(), NOW.time(), dt.timedelta(1, 2, 3), decimal.Decimal("1.50"), uuid.UUID(int=7),
    collections.OrderedDict(a=1), collections.deque([1]), collections.defaultdict(list, {"a": [1]}),
    NOW.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")), dt.timezone(dt.timedelta(hours=2)),
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_calls_of_what_is_on_the_list_run_as_before(protocol: int) -> None:
    tasks: list[tuple[Any, Any]] = [
        ((stall.ok, tuple(VALUES), {}), tuple(VALUES)),
        ((stall.cached, (7,), {}), ("cached", 7)),
        ((stall.Basket, (7,), {}), ("Basket", 7)),
        ((functools.partial(stall.ok, 1), (7,), {}), (1, 7)),
        ((member, (stall.basket, "add", 7), {}), ("add", 7)),
        ((member, (stall.Basket, "of", 7), {}), ("of", 7)),
        ((stall.basket.add, (7,), {}), ("add", 7)),
        ((stall.Basket.of, (7,), {}), ("of", 7)),
        ((stall.Basket.Lid.close, (7,), {}), ("close", 7)),
        ((stall.basket, (7,), {}), ("called", 7)),
    ]
    with legacy_worker(f"{STALL}.*"):
        for task, expected in tasks:
            assert post(pickle.dumps(task, protocol)) == 200
            assert stall.calls[-1:] == [expected], letters()
        assert letters() == []


# --- 4. what values name ----------------------------------------------------------------------------------------------


def fresh(code: str, *arguments: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", FRESH + code, *arguments], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return done.stdout


FRESH = """
import sys
from unit.gae_handler.test_allow_list import body, letters, packed, post, worker, STALL
from defer_core.wire import types as ext
def forget(*names):
    for name in [each for each in sys.modules if each.startswith(names)]:
        del sys.modules[name]
"""


@pytest.mark.parametrize(
    ("value", "module"),
    [
        (packed(ext.ENUM, ["wsgiref.simple_server:X", "Y"]), "wsgiref.simple_server"),
        (packed(ext.TUPLE, [packed(ext.ENUM, ["wsgiref.simple_server:X", "Y"])]), "wsgiref.simple_server"),
        ({packed(ext.ENUM, ["wsgiref.simple_server:X", "Y"]): 1}, "wsgiref.simple_server"),
        (packed(ext.ENUM, ["concurrent.futures:ProcessPoolExecutor", "Y"]), "concurrent.futures.process"),
        (packed(ext.NDB_KEY, ["cloud", "p", None, None, ["Kind", 1]]), "google.cloud.ndb"),
        (packed(ext.NDB_KEY, ["appengine", "p", None, None, ["Kind", 1]]), "google.appengine.ext.ndb"),
    ],
)
def test_a_value_imports_nothing_that_is_not_on_the_list(value: Any, module: str) -> None:
    payload = msgpack.packb([f"{STALL}:ok", [value], {}]).hex()
    code = f"""
import concurrent.futures, msgpack
call = msgpack.unpackb(bytes.fromhex({payload!r}), strict_map_key=False, ext_hook=__import__("msgpack").ExtType)
forget({module!r})
with worker(STALL + ".ok"):
    assert post(body(call)) == 200 and len(letters()) == 1
print({module!r} in sys.modules)
"""
    assert fresh(code) == "False\n"


def test_the_module_of_an_allowed_callable_brings_what_its_arguments_need() -> None:
    code = """
forget(STALL, "decimal")
member = packed(ext.ENUM, ["unit.gae_handler.palette:Shade", "DARK"])
with worker(STALL + ".*", "unit.gae_handler.painter.*"):
    paint = "unit.gae_handler.painter:paint"
    partial = ["partial", paint, [member], {}]
    for call in ([paint, [member], {}], [partial, [], {}], [STALL + ":ok", [packed(ext.CALLABLE, partial)], {}]):
        forget("unit.gae_handler.pa")
        assert post(body(call)) == 200
        print(letters())
"""
    assert fresh(code) == "DARK\n[]\nDARK\n[]\n[]\n"


def test_what_may_not_run_is_refused_before_its_arguments_are_read() -> None:
    bad = packed(ext.ENUM, ["no.such.module:X", "Y"])
    for ref in ("os:system", ["partial", "os:system", [bad], {}]):
        with worker():
            assert "forbidden_callables" in run_and_refused(body([ref, [bad], {}]))


def test_an_enum_of_a_loaded_module_travels_under_a_list() -> None:
    with worker(f"{STALL}.ok"):
        defer(stall.ok, HTTPStatus.OK, stall.Colour.RED)
        assert drain().done == 1
    assert stall.calls == [(HTTPStatus.OK, stall.Colour.RED)]


def test_a_key_travels_where_its_library_is_loaded_or_listed() -> None:
    key = pytest.importorskip("google.cloud.ndb").Key("Kind", 1, project="p", namespace="", database="")
    with worker(f"{STALL}.ok"):
        defer(stall.ok, key)
        assert drain().done == 1
    assert stall.calls == [(key,)]


# --- 7. what no project means -----------------------------------------------------------------------------------------


def test_what_is_given_a_program_or_text_to_run_is_refused_at_both_ends_and_in_pickles() -> None:
    for module, names in GIVEN.items():
        for name in names.split():
            func = functools.reduce(getattr, name.split("."), import_module(module))
            with pytest.raises(CallableForbiddenError, match="forbidden_callables"):
                config.Config().policy.check(true_name(func))
            with pytest.raises(CallableError), in_memory():
                defer(func, 1)
            with worker(allow_pickle=True):
                assert "forbidden_callables" in run_and_refused(body([f"{module}:{name}", [], {}]))
                value = msgpack.ExtType(ext.PICKLE, pickle.dumps(func, 4))
                assert "forbidden_callables" in run_and_refused(body([f"{STALL}:ok", [value], {}]))


GIVEN = {
    "pydoc": "pipepager locate safeimport", "logging.config": "dictConfig fileConfig listen _resolve",
    "timeit": "timeit repeat Timer", "code": "interact InteractiveInterpreter", "runpy": "run_module run_path",
    "pdb": "run Pdb", "webbrowser": "open GenericBrowser", "pty": "spawn", "trace": "Trace", "cProfile": "run runctx",
    "profile": "run runctx", "doctest": "testmod debug_script", "ensurepip": "bootstrap", "venv": "create EnvBuilder",
    "zipapp": "create_archive", "multiprocessing.util": "spawnv_passfds", "multiprocessing.spawn": "spawn_main",
    "multiprocessing.forkserver": "main", "multiprocessing.managers": "MakeProxyType", "ctypes": "CDLL",
    "importlib": "import_module", "asyncio": "create_subprocess_shell create_subprocess_exec",
    "os": "system popen execv spawnv posix_spawn fork _exit _execvpe", "uuid": "_get_command_stdout",
    "imaplib": "IMAP4_stream", "http.server": "CGIHTTPRequestHandler", "site": "addsitedir addpackage",
    "typing": "get_type_hints ForwardRef _eval_type", "gettext": "c2py", "rlcompleter": "Completer",
    "optparse": "Values", "xml.sax": "make_parser", "warnings": "_getcategory", "pkgutil": "resolve_name",
    "unittest": "TestLoader main", "unittest.mock": "_set_signature", "sys": "exit settrace addaudithook",
    "signal": "raise_signal", "faulthandler": "dump_traceback_later", "atexit": "register",
    "inspect": "get_annotations",
    "builtins": "eval exec compile __import__ open setattr globals breakpoint", "pickle": "loads", "marshal": "loads",
    "django.utils.module_loading": "import_string", "django.utils.log": "configure_logging",
    "defer_core": "configure", "defer_core.config": "reset set_source", "defer_core.wire.callables": "resolve",
    "defer_core.config.model": "build",
}  # fmt: skip
"""Things of the standard library, of Django's and ours that run, import or change what an argument says."""
