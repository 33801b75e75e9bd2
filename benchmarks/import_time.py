"""`import defer_core` beside importing msgpack and the same modules of the standard library, in fresh processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

from ._figures import Figure

ROUNDS = 15
TIMED = "import time; _began = time.perf_counter(); {}; print(time.perf_counter() - _began)"
LOADED = "import sys; _old = set(sys.modules); import defer_core, json; print(json.dumps([*sys.modules.keys() - _old]))"


def rows() -> list[Figure]:
    """One figure, in milliseconds."""
    ours = "import defer_core"
    floor = f"import {', '.join(['msgpack', *standard_modules()])}"
    for program in (ours, floor):  # the bytecode is compiled, and the files are in the cache
        seconds(program)
    pairs = [(seconds(floor), seconds(ours)) for _ in range(ROUNDS)]
    below, above = (statistics.median(each) for each in zip(*pairs, strict=True))
    return [("import defer_core / msgpack and the same standard modules", *_ms(below, above), above / below, "≤ 1.5")]


def standard_modules() -> list[str]:
    """The modules of the standard library that `import defer_core` loads."""
    loaded: list[str] = json.loads(run(LOADED))
    return sorted(name for name in loaded if name.partition(".")[0] in sys.stdlib_module_names)


def seconds(program: str) -> float:
    """How long the imports take in a fresh process."""
    return float(run(TIMED.format(program)))


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # what is installed has its bytecode, whatever is set here
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ).stdout


def _ms(*values: float) -> tuple[str, ...]:
    return tuple(f"{value * 1e3:.1f} ms" for value in values)
