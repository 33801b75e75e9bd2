"""Replace the functions of a real Djangae's `djangae.tasks` by ours as soon as it is imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

REPLACED: Mapping[str, Mapping[str, str]] = {
    "djangae.tasks.deferred": {
        name: f"defer_djangae.deferred:{name}"
        for name in (
            "DEFERRED_ITERATION_SHARD_INDEX_KEY", "Error", "PermanentTaskFailure", "SingularTaskFailure",
            "TimeoutException", "defer", "defer_iteration_with_finalize", "get_deferred_shard_index",
        )
    },
    "djangae.tasks.handlers": {"deferred_handler": "defer_djangae.handlers:deferred_handler"},
}  # fmt: skip
"""Modules of Djangae, their names to replace, and the replacements."""
REPLACED = {**REPLACED, "djangae.deferred": REPLACED["djangae.tasks.deferred"]}


def install() -> None:
    """Replace what is imported already, and the rest when it is imported. Safe to repeat; it leaves the shims alone."""
    from .paths import live

    if live() == "shim":
        return
    for name in REPLACED:
        if name in sys.modules:
            take_over(sys.modules[name])
    if not any(isinstance(each, Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, Finder())


def take_over(module: ModuleType) -> None:
    """Replace the names of one module of Djangae's."""
    from defer_core.spi import resolve

    for name, ours in REPLACED[module.__name__].items():
        setattr(module, name, resolve(ours))


class Finder(MetaPathFinder):
    """Finds Djangae's own modules, and replaces their names after their import."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in REPLACED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module
            spec.loader.exec_module = partial(_run_and_replace, run)  # type: ignore[method-assign]
        return spec


def _run_and_replace(run: Any, module: ModuleType) -> None:
    run(module)
    take_over(module)
