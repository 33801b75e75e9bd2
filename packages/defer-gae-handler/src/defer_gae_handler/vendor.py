"""Copy handler, core and pure-Python msgpack into a tree, for services without an installer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from defer_core.errors import ConfigError

PACKAGES = ("defer_core", "defer_gae_handler", "msgpack")
"""The packages to copy. msgpack falls back to pure Python without its extension module."""
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "*.pyx", "*.c", "*.cpp")


def vendor(target: Path) -> list[Path]:
    """Copy the packages into `target`, over older copies of them. Returns their folders. Raises ConfigError."""
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is not a folder: name the one that your service puts on sys.path, such as lib/.")
    pairs = [(source, target / source.name) for source in _sources()]
    for source, copy in pairs:
        _refuse(source, copy)
    for source, copy in pairs:
        if copy.exists():
            shutil.rmtree(copy)
        shutil.copytree(source, copy, ignore=LEFT_OUT)
    return [copy for _, copy in pairs]


def _sources() -> Iterator[Path]:
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.origin:
            raise ConfigError(f"{name} is not installed as files, so it cannot be copied.")
        yield Path(spec.origin).resolve().parent


def _refuse(source: Path, copy: Path) -> None:
    """Raise ConfigError rather than delete anything but an older copy."""
    if copy.resolve() == source:
        raise ConfigError(f"{copy} is what would be copied: vendor into another folder.")
    if copy.is_symlink() or (copy.exists() and not (copy / "__init__.py").is_file()):
        raise ConfigError(f"{copy} exists, and is not a copy of the package {copy.name}: move it away.")
