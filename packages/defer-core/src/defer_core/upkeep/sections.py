"""What other packages show in `status` beside queues and stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Row = Mapping[str, str | int | float | None]
"""One thing that is shown: values by the names of their columns."""
Section = Callable[[int], Sequence[Row]]
"""Takes how many rows are wanted at most; returns them, all with the same columns, what needs a person first."""
sections: dict[str, Section] = {}
"""Those that are registered, by name."""


def register_section(name: str, section: Section) -> None:
    """Show the rows of `section` under `name`; a later one of the same name replaces it."""
    sections[name] = section
