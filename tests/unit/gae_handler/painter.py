"""A module that brings, for its callers, the class of what they give it."""

from __future__ import annotations

from unit.gae_handler.palette import Shade


def paint(shade: Shade) -> None:
    print(shade.name)
