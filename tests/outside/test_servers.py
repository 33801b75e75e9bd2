"""One run for one answer from 200 to 299, whatever the server and the form of its answer."""

from __future__ import annotations

import pytest
from outside.forms import FORMS
from outside.processes import wait_for
from outside.row import ROWS, Row
from outside.site import note, ran, sending

from defer_core import defer

TASKS = 6


@pytest.mark.parametrize("row", ROWS, indirect=True, scope="module")
@pytest.mark.parametrize("form", FORMS)
def test_each_task_runs_once(row: Row, form: str) -> None:
    numbers = [next(row.numbers) for _ in range(TASKS)]
    before = len(row.told())
    padding = "x" * 500_000 if not FORMS[form].reads else ""
    with sending(row.folder) as transport:
        for number in numbers:
            headers = {"X-Form": form, "X-Number": str(number)}
            defer(note, number, padding, _small_task=True, _headers=headers)
        wait_for(lambda: transport.queue.tasks() == [], f"the end of all tasks ({form})", row.dispatcher, row.process)
    assert sorted(number for number in ran(row.folder) if number in numbers) == numbers
    said = row.told()[before:]
    assert len(said) == TASKS and all(f" attempt 1: {FORMS[form].status} in " in line for line in said), "\n".join(said)
