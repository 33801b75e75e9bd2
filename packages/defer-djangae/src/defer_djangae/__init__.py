"""The meta-package of defer: Djangae's tasks, under the same names."""

from __future__ import annotations

from .__about__ import __version__
from .paths import PATHS, install_paths, live

__all__ = ["PATHS", "__version__", "install_paths", "live"]
