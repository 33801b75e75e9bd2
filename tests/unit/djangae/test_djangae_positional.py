"""The three positional orders of `defer_iteration_with_finalize`."""

import pytest

from defer_djangae.positional import named
from defer_djangae.processing import datastore_key_ranges, uuid_key_ranges


def test_a_list_tuple_or_none_is_args():
    assert named([[1, 2], "slow", 3], {}) == {"args": [1, 2], "_queue": "slow", "_shards": 3}
    assert named([(1,)], {"touch": True}) == {"args": (1,), "touch": True}
    assert named([None, "slow", 2, False, True, 9], {}) == {
        "args": None, "_queue": "slow", "_shards": 2, "_delete_marker": False, "_transactional": True,
        "_buffer_time": 9,
    }  # fmt: skip


def test_a_string_is_the_queue_as_in_djangae_1():
    assert named(["slow", 3, False, True, 20, "a", "b"], {"touch": True}) == {
        "_queue": "slow", "_shards": 3, "_delete_marker": False, "_transactional": True, "_buffer_time": 20,
        "args": ("a", "b"), "touch": True,
    }  # fmt: skip


def test_a_callable_is_the_key_ranges_getter_as_in_djangae_2():
    assert named([uuid_key_ranges, "name", "slow", "back", "v2", 3, False, True, "a"], {}) == {
        "key_ranges_getter": uuid_key_ranges, "order_field": "name", "_queue": "slow", "_service": "back",
        "_version": "v2", "_shards": 3, "_delete_marker": False, "_transactional": True, "args": ("a",),
    }  # fmt: skip


def test_the_default_ranges_of_djangae_are_our_own_plan():
    assert named([datastore_key_ranges, "name"], {}) == {"order_field": "name"}
    assert named([], {"key_ranges_getter": datastore_key_ranges}) == {}


def test_no_queue_is_the_default_queue():
    assert named([], {"_queue": None, "_shards": 2}) == {"_shards": 2}


def test_what_fits_no_order_says_which_there_are():
    with pytest.raises(TypeError, match=r"fourth positional argument is 5: .*_queue.*key_ranges_getter"):
        named([5], {})


def test_an_argument_given_twice_is_named():
    with pytest.raises(TypeError, match="multiple values for argument '_queue'"):
        named(["slow"], {"_queue": "fast"})
    with pytest.raises(TypeError, match="multiple values for argument 'args'"):
        named(["slow", 1, True, False, None, "extra"], {"args": [1]})


def test_too_many_positional_arguments_name_args():
    with pytest.raises(TypeError, match="`args="):
        named([[1], "slow", 1, True, False, None, "extra"], {})
