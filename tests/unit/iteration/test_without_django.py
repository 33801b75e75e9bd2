"""Sources are walked, over a store that is in use, where Django is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("django", "defer_django"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from defer_core.testing import MemoryStore, drain, in_memory
from defer_iteration import IterationHandle, current_iteration, current_shard, defer_iteration_with_finalize
from defer_iteration.sources import numbers
from defer_iteration.stores import routing
from defer_iteration.stores.memory import MemoryIterationStore
seen, counted = [], []

def note(number):
    if number in (3, 30) and number not in seen:
        seen.append(number)
        raise ValueError(number)
    seen.append(number)
    current_shard().count("passed")

def end():
    counted.append(current_iteration().counters["passed"])

def walk(source=numbers(0, 50), **options):
    return defer_iteration_with_finalize(source, note, end, **options)

def a_queryset():
    return "of which there is none"
"""
RUNS = """
tasks = MemoryStore()
with in_memory(store=tasks) as queue, routing.in_use(MemoryIterationStore(tasks)):
    handle = walk(_shards=4, _name="numbers")
    drain(queue)
    assert handle.begun and not walk(_name="numbers").begun
    assert sorted(seen) == sorted([*range(50), 3, 30]) and counted == [50]
    assert handle.progress().rows == 50 and handle.forget()
assert "django" not in sys.modules
"""
REFUSES = """
from defer_core.errors import ConfigError
from defer_iteration import IterationRefusedError
tasks = MemoryStore()
with in_memory(store=tasks) as queue:
    for source in (["a", "list"], a_queryset):
        try:
            walk(source)
        except IterationRefusedError as error:
            assert "need Django, which is missing" in str(error), error
        else:
            raise AssertionError(source)
    for call in (walk, IterationHandle.named("numbers").progress, routing.all_stores):
        try:
            call()
        except ConfigError as error:
            assert "No IterationStore is in use here" in str(error), error
        else:
            raise AssertionError(call)
"""


@pytest.mark.parametrize("what", [RUNS, REFUSES], ids=["runs", "refuses"])
def test_without_django(tmp_path: Path, what: str) -> None:
    (tmp_path / "service.py").write_text(BLOCKED + what)
    done = subprocess.run([sys.executable, "-c", "import service"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
