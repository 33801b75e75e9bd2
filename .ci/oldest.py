"""The test files of the packages that need nothing private of the core: these run against another core than ours.

python .ci/oldest.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("gae_handler", "local", "defer_django", "iteration", "djangae")
PUBLIC = ("errors", "spi", "testing")
MODULES = {path.stem for path in (ROOT / "packages/defer-core/src/defer_core").iterdir() if path.stem[0] != "_"}
PRIVATE = "|".join(sorted(MODULES - {*PUBLIC, "py"}))
NEEDS_THE_INSIDE = re.compile(
    rf"defer_core\.({PRIVATE}|__main__)\b|defer_core\.testing\.(?!contracts)\w+ import"
    rf"|^\s*from defer_core import (?:.*\W)?({PRIVATE}|__main__)\b",
    re.MULTILINE,
)


def main() -> None:
    """Print the files, and on stderr those that are left out."""
    files = sorted(path for package in PACKAGES for path in (ROOT / "tests/unit" / package).rglob("*.py"))
    needing = [path for path in files if NEEDS_THE_INSIDE.search(path.read_text())]
    support = [path.name for path in needing if not path.name.startswith("test_")]
    if support:
        sys.exit(f"These are in the way, for they need the inside of the core: {', '.join(support)}")
    tests = [path for path in files if path.name.startswith("test_")]
    print(*(path.relative_to(ROOT) for path in tests if path not in needing), sep="\n")
    names = ", ".join(path.name for path in needing)
    print(f"Left out, for they need the inside of the core: {names}", file=sys.stderr)


if __name__ == "__main__":
    main()
