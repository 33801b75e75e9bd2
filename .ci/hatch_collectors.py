"""Let hatch find the interpreters that pyenv holds but does not put on PATH, and download none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatch.env.collectors.plugin.interface import EnvironmentCollectorInterface


class PyenvCollector(EnvironmentCollectorInterface):  # type: ignore[misc]
    """Changes the environment of hatch itself, before it looks for interpreters."""

    PLUGIN_NAME = "custom"

    def get_initial_config(self) -> dict[str, Any]:
        """No environments of its own."""
        os.environ.setdefault("HATCH_PYTHON_VARIANT_GIL", "none")
        known = os.environ.get("PATH", "").split(os.pathsep)
        os.environ["PATH"] = os.pathsep.join([*known, *(each for each in interpreters() if each not in known)])
        return {}


def interpreters() -> list[str]:
    """The `bin` folders of pyenv's versions, newest first."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return [str(each) for each in sorted(root.glob("versions/3.*/bin"), key=_version, reverse=True)]


def _version(folder: Path) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in folder.parent.name.split(".")]
