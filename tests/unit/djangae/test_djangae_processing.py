"""Key ranges: half-open, in order, without overlap or gap."""

import uuid
from itertools import pairwise

import pytest

from defer_djangae import processing

STRINGS = [
    processing.firestore_name_key_ranges,
    processing.firebase_uid_key_ranges,
    processing.uuid_key_ranges,
    processing.firestore_scattered_int_key_ranges,
]


class Keys:
    """As much of a queryset as the ranges of integers need."""

    def __init__(self, *keys):
        self.keys = sorted(keys)

    def order_by(self, *_):
        return self

    def values_list(self, *_, **__):
        return self

    def first(self):
        return self.keys[0] if self.keys else None

    def last(self):
        return self.keys[-1] if self.keys else None


def inside(ranges, key):
    return sum((low is None or key >= low) and (high is None or key < high) for low, high in ranges)


@pytest.mark.parametrize("ranges_of", STRINGS)
@pytest.mark.parametrize("shards", [2, 3, 7, 14])
def test_even_ranges_meet_and_are_open_at_both_ends(ranges_of, shards):
    ranges = ranges_of(None, shards)
    assert len(ranges) == shards
    assert ranges[0][0] is None
    assert ranges[-1][1] is None
    assert all(low[1] == high[0] for low, high in pairwise(ranges))
    bounds = [high for _, high in ranges[:-1]]
    assert bounds == sorted(bounds)
    assert all(inside(ranges, bound) == 1 for bound in bounds)


@pytest.mark.parametrize("ranges_of", STRINGS)
def test_one_shard_is_not_divided(ranges_of):
    assert ranges_of(None, 1) == [(None, None)]


def test_firestore_integers_are_all_covered():
    ranges = processing.firestore_scattered_int_key_ranges(None, 5)
    step = processing.FIRESTORE_MAX_INT // 5
    for key in (1, step, step + 1, 2 * step, 2 * step + 1, processing.FIRESTORE_MAX_INT):
        assert inside(ranges, key) == 1


def test_uuids_are_covered_with_and_without_hyphens():
    ranges = processing.uuid_key_ranges(None, 7)
    for _ in range(50):
        key = uuid.uuid4()
        assert inside(ranges, key.hex) == inside(ranges, str(key)) == 1


@pytest.mark.parametrize(
    "least,greatest,shards", [(0, 1000, 100), (-1000, 1000, 200), (1, 25, 5), (3, 17, 4), (5, 5, 3)]
)
def test_sequential_ranges_hold_each_key_once(least, greatest, shards):
    ranges = processing.sequential_int_key_ranges(Keys(least, greatest), shards)
    assert len(ranges) <= shards
    assert all(inside(ranges, key) == 1 for key in range(least, greatest + 1))
    assert inside(ranges, least - 1) == inside(ranges, greatest + 1) == 0


def test_sequential_ranges_of_more_shards_than_keys():
    ranges = processing.sequential_int_key_ranges(Keys(0, 1000), 2000)
    assert (ranges[0], ranges[-1], len(ranges)) == ((0, 1), (999, 1001), 1000)


def test_sequential_ranges_of_no_rows_are_one_open_range():
    assert processing.sequential_int_key_ranges(Keys(), 5) == [(None, None)]


def test_scattered_keys_become_split_points():
    ranges = processing.datastore_key_ranges(None, 3, lambda queryset, shards: [9, 1, 5, 3, 7, 3])
    assert ranges[0][0] is ranges[-1][1] is None
    assert len(ranges) == 3
    assert all(inside(ranges, key) == 1 for key in range(12))


def test_few_or_no_scattered_keys():
    assert processing.datastore_key_ranges(None, 5, lambda *_: [4, 2]) == [(None, 2), (2, 4), (4, None)]
    assert processing.datastore_key_ranges(None, 5, lambda *_: []) == [(None, None)]
    assert processing.datastore_key_ranges(None, 1) == [(None, None)]


@pytest.mark.django_db
def test_sampled_ranges_keep_falsy_values_as_split_points():
    from testapp.models import Row

    Row.objects.bulk_create(Row(number=n, rank=None if n % 5 == 0 else n % 4) for n in range(40))
    getter = processing.SampledKeyRangeGenerator(Row.objects.order_by("pk"), "rank")
    ranges = getter(Row.objects.all(), 4)
    assert ranges == [(None, 0), (0, 1), (1, 2), (2, 3), (3, None)]


def test_nth_string():
    assert [processing.nth_string("ba", 2, n) for n in range(4)] == ["aa", "ab", "ba", "bb"]
    with pytest.raises(ValueError, match="4 strings of length 2"):
        processing.nth_string("ab", 2, 4)


@pytest.mark.django_db
def test_chunks_skip_no_row_that_the_caller_takes_out_of_the_filter():
    from testapp.models import Row

    Row.objects.bulk_create(Row(number=n) for n in range(25))
    seen = 0
    for row in processing.iterate_in_chunks(Row.objects.filter(done=False), chunk_size=10):
        Row.objects.filter(pk=row.pk).update(done=True)
        seen += 1
    assert seen == 25
    assert len(list(processing.iterate_in_chunks(Row.objects.all()[:4]))) == 4
    assert [row.number for row in processing.iterate_in_chunks(Row.objects.order_by("-number"), 10)][:2] == [24, 23]


def test_orders_and_filters():
    from testapp.models import Book, Row

    assert processing.get_stable_order(Row, "pk") == ("pk",)
    assert processing.get_stable_order(Row, "id") == ("id",)
    assert processing.get_stable_order(Row, "number") == ("number", "pk")
    assert processing.get_batch_filter(Row(pk=7), "id") == {"pk__gt": 7}
    assert processing.get_batch_filter(Book(title="B"), "title", from_next=False) == {"title__gte": "B"}
