"""Kinds of settings: the text of a variable becomes a value, or an error that names the variable."""

from __future__ import annotations

import re

import pytest

from defer_core.config import from_environment
from defer_core.errors import ConfigError


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("DEFER_INLINE_LIMIT", "many", "a whole number"),
        ("DEFER_ALLOW_PICKLE", "maybe", "true or false"),
        ("DEFER_STORE_OPTIONS", "{", "a JSON object"),
        ("DEFER_TIMEZONE", "X", "the name of a time zone"),
        ("DEFER_EXPIRES_AFTER", "soon", "a number"),
        ("DEFER_AUTHENTICATORS", "[", "a JSON list"),
    ],
)
def test_a_bad_variable_is_named(variable: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable} is {re.escape(repr(text))}: give {expected}"):
        from_environment({variable: text})


def test_a_list_may_be_json() -> None:
    found = from_environment({"DEFER_KEYS": '["with, comma", "two"]', "DEFER_QUEUES": '[{"name": "mail"}]'})
    assert (found.keys, found.queues) == (("with, comma", "two"), ({"name": "mail"},))
    with pytest.raises(ConfigError, match="DEFER_KEYS has a mistake: give a JSON list"):  # which is a secret
        from_environment({"DEFER_KEYS": '["with'})
