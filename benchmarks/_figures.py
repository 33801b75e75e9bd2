"""What a benchmark returns."""

from __future__ import annotations

import importlib

Figure = tuple[str, str, str, float, str]
"""What was measured, the floor's figure, ours, the ratio (ours to the floor's), and the goal."""


def figures(name: str) -> list[Figure]:
    """The figures of one module, in this process; none where it has no `rows`."""
    module = importlib.import_module(f"benchmarks.{name}")
    return list(module.rows()) if hasattr(module, "rows") else []
