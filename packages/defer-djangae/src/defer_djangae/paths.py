"""Where the shims of `djangae.*` are, and whether they or a real Djangae are what `import djangae` finds."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PATHS = Path(__file__).parent / "_paths"
"""The folder whose `djangae` package holds the shims."""


def install_paths() -> Path:
    """Put the shims at the end of `sys.path`, where no `.pth` does (`pip install --target`). Returns their folder.

    Safe to repeat. A real Djangae anywhere on the path comes before them, and wins.
    """
    if str(PATHS) not in sys.path:
        sys.path.append(str(PATHS))
    return PATHS


def live() -> str:
    """What `import djangae` finds: `shim`, `missing`, or the folder of a real Djangae."""
    spec = find_spec("djangae")
    if spec is None:
        return "missing"
    found = [Path(each).resolve() for each in spec.submodule_search_locations or []]
    return "shim" if PATHS.resolve() / "djangae" in found else str(found[0] if found else spec.origin)
