"""Promises 3 to 6 on PostgreSQL, with workers killed where they stand."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from integration.crashes.iteration_soak import soak
from integration.crashes.soak import create

pytestmark = pytest.mark.crashes
ROWS = 20_000


@pytest.mark.parametrize("atomic", [True, False])
def test_every_row_is_passed_and_counted_once_under_kills(postgres: str, atomic: bool) -> None:
    where = urlsplit(postgres)
    host, name = parse_qs(where.query)["host"][0], f"{where.path.strip('/')}_iterations"
    create(host, name)  # the other soak migrates what this one only makes
    report = soak(
        rows=ROWS,
        shards=16,
        host=host,
        name=name,
        seed=5,
        atomic=atomic,
        every=1.0,
        checkpoint=0.3,
    )
    said = str(report)
    assert report.kills >= 2, said
    assert report.fences > len(report.shards) == 16, said  # some attempts were killed
    assert report.hits == {1: ROWS} if atomic else sum(report.hits.values()) == ROWS and min(report.hits) >= 1, said
    assert sum(report.shards) == ROWS, said
    assert report.finalized and set(report.finalized) == {ROWS}, said
