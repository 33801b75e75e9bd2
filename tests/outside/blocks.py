"""The blocks of code in the documents: what stands between fences, or is indented by four."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", "docs/*.md", "packages/*/README.md", "examples/*/README.md", "benchmarks/README.md"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block, as printed."""

    document: str
    """The path of its document."""
    text: str
    """Its lines, without fence and indentation."""

    @property
    def key(self) -> str:
        """What it is called here: its document and its first line."""
        return f"{self.document}: {self.text.splitlines()[0]}"


def printed() -> list[Block]:
    """All blocks of all documents."""
    paths = sorted(path for pattern in DOCUMENTS for path in ROOT.glob(pattern))
    return [
        Block(document=str(path.relative_to(ROOT)), text=text)
        for path in paths
        for text in _blocks(path.read_text().splitlines())
    ]


def _blocks(lines: list[str]) -> Iterator[str]:
    block: list[str] = []
    fenced, before = False, ""
    for line in [*lines, "end"]:
        if re.match(r" *```", line):
            if block:
                yield "\n".join(block).rstrip()
            fenced, block = not fenced, []
        elif fenced:
            block.append(line)
        elif line.startswith("    ") and (block or not before.strip()):
            block.append(line[4:])
        elif block and line.strip():
            yield "\n".join(block).rstrip()
            block = []
        elif block:
            block.append("")
        before = line
