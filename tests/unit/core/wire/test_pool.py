"""Packers are used by one caller at a time, and kept while their buffers are small."""

from __future__ import annotations

from defer_core.wire.pool import MAX_BUFFER, Pool


def test_an_object_in_use_is_not_given_to_another_caller() -> None:
    pool = Pool(object)
    first, second = pool.take(), pool.take()
    assert first is not second
    pool.give_back(first, MAX_BUFFER)
    assert pool.take() is first and pool.take() is not first


def test_one_whose_buffer_has_grown_is_dropped() -> None:
    pool = Pool(object)
    grown = pool.take()
    pool.give_back(grown, MAX_BUFFER + 1)
    assert pool.take() is not grown
