"""What the project's own script defines travels by the name that another process imports it by, or is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import dataclasses, enum, functools, multiprocessing, sys, typing
from defer_core import Call, Delivery, defer, defer_many, execute
from defer_core.testing import MemoryStore, in_memory

KEPT = []

def note(*args, **kwargs):
    kinds = {type(each).__name__ for each in KEPT}
    print("ran", *args, *kwargs.items())

def told(value):
    print("told", type(value).__module__, type(value).__qualname__)

class Colour(enum.Enum):
    RED = 1

class Bits(enum.IntFlag):
    A = 1
    B = 2

@dataclasses.dataclass
class Card:
    name: object
    def method(self): print("method", self.name)
    @classmethod
    def of(cls): print("of", cls.__name__)
    def __call__(self): print("called", self.name)
    class Inner:
        @staticmethod
        def deep(): print("deep")

class Text(str): pass
class Point(typing.NamedTuple):
    x: int
class Pair(tuple): pass
class Failed(Exception): pass
class Plain: pass

def plain():
    made = Plain()
    made.inner = [Card("deep"), {Colour.RED: Text("t")}, told, Card]
    return made

CALLS = {
    "function": lambda: (note, 1),
    "method": lambda: (Card("m").method,),
    "class_method": lambda: (Card.of,),
    "static": lambda: (Card.Inner.deep,),
    "class": lambda: (Card, "x"),
    "instance": lambda: (Card("i"),),
    "partial": lambda: (functools.partial(note, 1, key=2),),
    "partial_of_method": lambda: (functools.partial(Card("p").method),),
    "function_as_argument": lambda: (told, note),
    "class_as_argument": lambda: (told, Card),
    "method_as_argument": lambda: (told, Card("a").method),
    "dataclass": lambda: (told, Card("d")),
    "enum": lambda: (told, Colour.RED),
    "flags": lambda: (told, Bits.A | Bits.B),
    "enum_as_key": lambda: (note, {Colour.RED: 1}),
    "text": lambda: (told, Text("t")),
    "named_tuple": lambda: (told, Point(1)),
    "tuple": lambda: (told, Pair((1, 2))),
    "exception": lambda: (told, Failed("f")),
    "inside_a_pickle": lambda: (told, plain()),
    "deep": lambda: (note, [{"a": (Colour.RED, {Text("k"): 1})}]),
}

def bodies():
    for name, call in CALLS.items():
        with in_memory() as queue:
            try:
                func, *args = call()
                defer(func, *args)
                defer_many(func, [tuple(args)])
                first, second = queue.queued()
                print(name, first.message.body.hex())
            except TypeError as error:
                print(name, "refused", "`__main__`" in str(error))

def run(body):
    with in_memory():
        execute(bytes.fromhex(body), Delivery(task_name="t", queue="default", retry_count=0))

print("imported as", __name__, file=sys.stderr)
if __name__ == "__main__":
    if sys.argv[1] == "bodies":
        bodies()
    elif sys.argv[1] == "child":
        multiprocessing.get_context("spawn").Process(target=bodies).start()
    elif sys.argv[1] == "serve":
        for line in sys.stdin.read().split():
            run(line)
"""
NAMES = [
    line.split('"')[1] for line in SCRIPT.partition("CALLS = {")[2].partition("\n}")[0].splitlines() if '": ' in line
]
RUNNER = """
import sys
from defer_core import Delivery, execute
from defer_core.testing import in_memory
with in_memory():
    for line in sys.stdin.read().split():
        execute(bytes.fromhex(line), Delivery(task_name="t", queue="default", retry_count=0))
"""


def python(folder: Path, *args: str, given: str = "") -> Any:
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, cwd=folder, input=given, check=False, timeout=60
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "shop").mkdir()
    for file in ("app.py", "shop/__init__.py", "shop/__main__.py", "shop/tasks.py", "with.dots.py"):
        (folder / file).write_text("" if "__init__" in file else SCRIPT)
    return folder


def bodies(folder: Path, *args: str) -> dict[str, list[str]]:
    done = python(folder, *args)
    assert done.returncode == 0, done.stderr
    return {name: rest for name, *rest in map(str.split, done.stdout.splitlines())}


@pytest.mark.parametrize(
    ("args", "module"),
    [
        (["app.py", "bodies"], "app"),
        (["app.py", "child"], "app"),
        (["-m", "app", "bodies"], "app"),
        (["-m", "shop.tasks", "bodies"], "shop.tasks"),
        (["-m", "shop.tasks", "child"], "shop.tasks"),
        (["-m", "shop", "bodies"], "shop.__main__"),
    ],
)
def test_a_script_s_own_values_travel_under_its_importable_name(folder: Path, args: list[str], module: str) -> None:
    found = bodies(folder, *args)
    assert list(found) == NAMES and all(len(each) == 1 for each in found.values()), found
    assert not [name for name, (body,) in found.items() if re.search(rb"[^.]__main__", bytes.fromhex(body))]
    done = python(folder, "-c", RUNNER, given="\n".join(body for (body,) in found.values()))
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ["imported", "as", module]
    assert f"told {module} Plain" in done.stdout and f"told {module} Colour" in done.stdout
    assert len(done.stdout.splitlines()) == len(NAMES) - 1  # a class that is called prints nothing


@pytest.mark.parametrize("args", [["-m", "shop.tasks", "serve"], ["shop/tasks.py", "serve"]])
def test_a_script_that_serves_its_own_tasks_is_not_run_a_second_time(folder: Path, args: list[str]) -> None:
    found = bodies(folder, *(args[:-1]), "bodies")
    done = python(folder, *args, given="\n".join(body for (body,) in found.values()))
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ["imported", "as", "__main__"]
    assert "told __main__ Plain" in done.stdout


@pytest.mark.parametrize(
    "args",
    [["-c", SCRIPT, "bodies"], ["-P", "app.py", "bodies"], ["with.dots.py", "bodies"], ["shop", "bodies"]],
    ids=["-c", "folder not on the path", "no name", "a folder"],
)
def test_what_has_no_other_name_is_refused_and_says_so(folder: Path, args: list[str]) -> None:
    found = bodies(folder, *args)
    assert found == {name: ["refused", "True"] for name in NAMES}


@pytest.mark.parametrize("args", [["app.py"], ["-m", "app"]])
def test_what_is_typed_at_a_prompt_is_refused(folder: Path, args: list[str]) -> None:
    typed = "def typed(): pass\n\nwith in_memory(): defer(typed)\n\n"
    done = python(folder, "-i", *args, "none", given=typed)
    assert "`__main__`" in done.stderr


def test_a_script_that_was_imported_once_more_travels_from_both(folder: Path) -> None:
    code = SCRIPT.replace(
        '    if sys.argv[1] == "bodies":', "    import again as copy\n    if sys.argv[1] == 'bodies':"
    )
    code = code.replace(
        '"function": lambda: (note, 1),', '"function": lambda: (note, 1), "copied": lambda: (copy.note, 2),'
    )
    (folder / "again.py").write_text(code)
    found = bodies(folder, "again.py", "bodies")
    assert all(len(each) == 1 for each in found.values()) and "copied" in found, found
