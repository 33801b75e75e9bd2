"""What HTTP can carry of a task."""

from __future__ import annotations

import pytest

from defer_core.http_syntax import encoded, is_header, is_url


@pytest.mark.parametrize(
    "text",
    ["/", "/run?a=b&c=%20#d", "//twice", "http://127.0.0.1:8000", "https://shop.example/run", "http://[::1]:8000/run"],
)
def test_urls(text: str) -> None:
    assert is_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run",
        "ftp://x/",
        "http://",
        "http:///run",
        "http://:80/",
        "http://x:0/",
        "http://x:70000/",
        "/a b",
        "/a\n",
        "/caf\xe9",
        "http://[x/",
        "http://caf%C3%A9.example/",
        "http://a b/",
    ],
)
def test_what_is_no_url(text: str) -> None:
    assert not is_url(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/run?a=%20#b", "/run?a=%20#b"),
        ("/a b", "/a%20b"),
        ("https://x/caf\xe9  \u0416?\ud800", "https://x/caf%C3%A9%20%20%D0%96?%ED%A0%80"),
        ("/a\n", "/a\n"),
    ],
)
def test_what_is_no_ascii_and_spaces_are_percent_encoded(given: str, expected: str) -> None:
    assert encoded(given) == expected and is_url(expected) == ("\n" not in given)


@pytest.mark.parametrize(("name", "value"), [("A", ""), ("X-A_b", "a b\t\xe9"), ("x.y", "~")])
def test_headers(name: str, value: str) -> None:
    assert is_header(name, value)


@pytest.mark.parametrize(
    ("name", "value"), [("", "x"), ("A b", "x"), ("A:", "x"), ("A\n", "x"), ("A", "x\n"), ("A", "\0"), ("A", "\u0416")]
)
def test_what_is_no_header(name: str, value: str) -> None:
    assert not is_header(name, value)
