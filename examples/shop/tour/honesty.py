"""The last checks: no attempt and no warning but those that a scene has asked for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .checks import Check

_RECORD = re.compile(r"^(\d{4}-\d\d-\d\d \S+ |\[.*?\] \[\d+\] \[)?(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
"""How a record of a log begins: Python's own format, with a time or without, and gunicorn's."""
_ATTEMPT = re.compile(r"task (\S+) retry (\d+) (?:begins|answers (\d+))$")
_PROVOKED = "(This is part of the demonstration.)"
"""What the exceptions of the demonstration say, so their records do, too."""
_UNLOGGED = re.compile(r"Exception in thread |Exception ignored in|\S+:\d+: \w*Warning: ")
"""How begins what Python itself prints."""
SHOWN = 5
"""Lines that a failed check shows."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One request of the queue, as the server tells it."""

    task: str
    """The task's name."""
    retry: int
    """Its retry count."""
    status: int | None
    """What it was answered; None where the server was killed first."""


def attempts(server: str) -> list[Attempt]:
    """The attempts in the server's log, in the order in which they began."""
    found: dict[tuple[str, int], int | None] = {}
    for line in server.splitlines():
        if match := _ATTEMPT.search(line):
            key = match[1], int(match[2])
            found[key] = int(match[3]) if match[3] else None
    return [Attempt(task=task, retry=retry, status=status) for (task, retry), status in found.items()]


def records(log: str) -> Iterator[str]:
    """The records of a log, tracebacks with the line that they belong to."""
    record: list[str] = []
    for line in log.splitlines():
        if record and (_RECORD.match(line) or _UNLOGGED.match(line)):
            yield "\n".join(record)
            record = []
        record.append(line)
    yield "\n".join(record)


def check(server: str, dispatcher: str, failing: Sequence[str], cut: str) -> Iterator[Check]:
    """Look through both logs. `failing` are the tasks that were to fail; `cut` is what the dispatcher said while the
    server was away: what was under way then is tried again."""
    made = attempts(server)
    odd = list(_unasked(made, failing, cut))
    detail = f"{len(made)} attempts" if not odd else f"{len(odd)} were not: {'; '.join(odd[:SHOWN])}"
    yield Check(scene="attempts", claim="each was asked for", held=bool(made) and not odd, detail=detail)
    for name, log in (("server", server), ("dispatcher", dispatcher.replace(cut, ""))):
        loud = [each for each in records(log) if _is_loud(each) and not _is_provoked(each, failing)]
        yield Check(
            scene="logs",
            claim=f"the {name} warns of nothing that was not provoked",
            held=not loud,
            detail="" if not loud else f"{len(loud)} warnings: {'; '.join(each[:300] for each in loud[:SHOWN])}",
        )


def _unasked(made: Sequence[Attempt], failing: Sequence[str], cut: str) -> Iterator[str]:
    """What is odd about the attempts: failures that nobody asked for, and repeats of what did not fail."""
    by_task = defaultdict(list)
    for each in made:
        by_task[each.task].append(each)
    for task, tries in by_task.items():
        for before, each in zip([None, *tries], tries, strict=False):
            if before is not None and before.status == 200 and task not in cut:  # its answer may not have got out
                yield f"{task} was repeated after 200"
            if each.status not in (None, 200) and task not in failing:
                yield f"{task} was answered {each.status}"
            if each.status is None and task not in cut:
                yield f"{task} was not answered"
            if each.retry != (0 if before is None else before.retry + 1) and task not in cut:
                yield f"{task} did not arrive each time"


def _is_loud(record: str) -> bool:
    level = _RECORD.match(record)
    quiet = level is None or level[2] in ("DEBUG", "INFO")
    return not quiet or "Traceback" in record or bool(_UNLOGGED.match(record))


def _is_provoked(record: str, failing: Sequence[str]) -> bool:
    return _PROVOKED in record or any(task in record for task in failing)
