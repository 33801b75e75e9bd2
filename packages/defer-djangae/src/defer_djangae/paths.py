"""The folder of the shims of `djangae.*`, and whether `import djangae` finds them or a real Djangae."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PATHS = Path(__file__).parent / "_paths"
"""The folder whose `djangae` package holds the shims."""
SHIM = (*PATHS.parts[-2:], "djangae")


def install_paths() -> Path:
    """Put the shims at the end of `sys.path`, where no `.pth` does (`pip install --target`). Returns their folder.

    Safe to repeat. A real Djangae anywhere on the path comes before them, and wins.
    """
    if str(PATHS) not in sys.path:
        sys.path.append(str(PATHS))
    return PATHS


def live() -> str:
    """Return what `import djangae` finds: `shim`, `missing`, or the folder of a real Djangae."""
    spec = find_spec("djangae")
    if spec is None:
        return "missing"
    found = Path(next(iter(spec.submodule_search_locations or [str(spec.origin)])))
    return "shim" if found.parts[-3:] == SHIM else str(found)
