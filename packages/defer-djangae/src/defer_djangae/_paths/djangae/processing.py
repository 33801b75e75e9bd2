"""`djangae.processing`: key ranges for `defer_iteration_with_finalize`."""

from defer_djangae.processing import (
    FIREBASE_UID_LENGTH,
    FIRESTORE_KEY_NAME_CHARS,
    FIRESTORE_KEY_NAME_LENGTH,
    FIRESTORE_MAX_INT,
    SampledKeyRangeGenerator,
    datastore_key_ranges,
    firebase_uid_key_ranges,
    firestore_name_key_ranges,
    firestore_scattered_int_key_ranges,
    get_batch_filter,
    get_stable_order,
    iterate_in_chunks,
    nth_string,
    sequential_int_key_ranges,
    uuid_key_ranges,
)
from defer_djangae.processing import find_random_keys as _find_random_keys

__all__ = [
    "FIREBASE_UID_LENGTH",
    "FIRESTORE_KEY_NAME_CHARS",
    "FIRESTORE_KEY_NAME_LENGTH",
    "FIRESTORE_MAX_INT",
    "SampledKeyRangeGenerator",
    "_find_random_keys",
    "datastore_key_ranges",
    "firebase_uid_key_ranges",
    "firestore_name_key_ranges",
    "firestore_scattered_int_key_ranges",
    "get_batch_filter",
    "get_stable_order",
    "iterate_in_chunks",
    "nth_string",
    "sequential_int_key_ranges",
    "uuid_key_ranges",
]
