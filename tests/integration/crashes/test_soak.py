"""Promises 1, 2 and 6 on PostgreSQL, with processes killed where they stand."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from integration.crashes.soak import soak

pytestmark = pytest.mark.crashes


def test_what_commits_runs_and_nothing_else_under_kills(postgres: str) -> None:
    where = urlsplit(postgres)
    report = soak(
        tasks=400, processes=2, host=parse_qs(where.query)["host"][0], name=where.path.strip("/"), seed=3, every=0.7
    )
    assert report.kills >= 3
    assert len(report.committed) >= 400
    assert report.committed == set(report.ran), str(report)
    assert report.left <= 100  # sent inline, and waiting to be forgotten with a later put
