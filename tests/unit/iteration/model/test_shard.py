"""Ranges that are cut: the parts follow each other, and together are the whole."""

from __future__ import annotations

from typing import Any

import pytest

from defer_iteration.model.shard import KeyRange, cut


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("nulls", [True, False])
@pytest.mark.parametrize(("lower", "upper"), [(None, None), ((0,), (9,)), (("a", 1), ("b",))])
def test_parts_follow_each_other_from_the_lower_bound_to_the_upper(
    lower: Any, upper: Any, nulls: bool, closed: bool
) -> None:
    within = KeyRange(lower=lower, upper=upper, closed=closed, nulls=nulls)
    assert cut(within, [(3,), (5,)]) == [
        KeyRange(lower=lower, upper=(3,), nulls=nulls),
        KeyRange(lower=(3,), upper=(5,), nulls=nulls),
        KeyRange(lower=(5,), upper=upper, closed=closed, nulls=nulls),
    ]


def test_without_bounds_a_range_stays_whole() -> None:
    within = KeyRange(lower=(0,), upper=(9,), closed=True)
    assert cut(within, []) == [within]
