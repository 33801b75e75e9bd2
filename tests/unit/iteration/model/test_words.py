"""Keys in words, with the values of a secret order hidden."""

from __future__ import annotations

from defer_iteration.model.words import HIDDEN, is_secret, key_in_words


def test_a_key_is_its_values() -> None:
    assert key_in_words((5,), "pk") == "5"
    assert key_in_words(("Müller", 5), "name") == "Müller, 5"


def test_before_the_first_row_there_is_none() -> None:
    assert key_in_words(None, "pk") == "…"


def test_the_value_of_a_secret_order_is_hidden() -> None:
    assert is_secret("api_token") and not is_secret("name")
    assert key_in_words(("hunter2", 5), "api_token") == f"{HIDDEN}, 5"
