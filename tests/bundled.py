"""The SDK of App Engine's bundled services, whose modules warn of themselves while they are compiled."""

from __future__ import annotations

import warnings
from typing import Any

import pytest


def sdk(name: str) -> Any:
    """A module of the SDK (`google.appengine.` goes before its name), or a skip where that is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(f"google.appengine.{name}")
