"""The doors: which there are, what each lets in and what it keeps out."""

from __future__ import annotations

import pytest
from unit.gae_handler.conftest import Poster
from unit.gae_handler.handled import QUEUE, body_of, calls, note

from defer_core import ConfigError, configure, defer
from defer_core.config import configured, current
from defer_core.record import State
from defer_core.testing import in_memory
from defer_gae_handler import Door, Request, handle
from defer_gae_handler.doors import configured_doors
from defer_gae_handler.doors.appengine import AppEngineDoor
from defer_gae_handler.doors.local import LocalDoor

SECRET = "s3cret-of-the-queue"
LOCAL = {"doors": ["local"], "door_options": {"local": {"secret": SECRET}}}


def names() -> list[str]:
    return [door.name for door in configured_doors(current())]


class OnTuesdays(Door):
    """A site's own."""

    name = "on-tuesdays"

    def admits(self, request: Request) -> bool:
        return request.headers.get("X-Day") == "Tuesday"


# --- which there are --------------------------------------------------------------------------------------------------


def test_no_door_is_there_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names() == []
    monkeypatch.setenv("K_SERVICE", "shop")
    assert names() == []


def test_app_engines_is_there_on_app_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names() == []
    monkeypatch.setenv("GAE_ENV", "standard")
    assert names() == ["appengine"]


def test_what_is_configured_is_all_there_is(app_engine: None) -> None:
    with in_memory(doors=["unit.gae_handler.test_doors:OnTuesdays"]):
        assert names() == ["on-tuesdays"]
    with in_memory(doors=[]):
        assert names() == []


def test_the_environment_can_name_doors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFER_DOORS", "appengine")
    assert names() == ["appengine"]


@pytest.mark.parametrize("spec", ["backdoor", "unit.gae_handler.handled:Door", 7])
def test_a_door_that_is_not_there_is_said_at_start_up(spec: object) -> None:
    with in_memory(doors=[spec]), pytest.raises(ConfigError, match=r"backdoor|handled:Door|7"):
        names()


def test_options_of_a_door_that_is_not_there_are_said_at_start_up() -> None:
    with in_memory(doors=["local"], door_options={"odic": {}}), pytest.raises(ConfigError, match=r"'odic'.*'oidc'\?"):
        names()


@pytest.mark.parametrize("door", ["cloud-run-iam", "loopback"])
def test_a_door_that_needs_signatures_needs_keys(door: str) -> None:
    with in_memory(doors=[door]), pytest.raises(ConfigError, match="keys"):
        names()


# --- App Engine -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("app_engine")
@pytest.mark.parametrize(
    "address, user_ip, opens",
    [
        ("0.1.0.2", None, True),  # behind the SDK's middleware
        ("127.0.0.1", None, True),  # the second generation, behind the platform's own proxy
        ("169.254.1.1", None, True),
        ("", None, True),
        ("127.0.0.1", "0.1.0.2", True),
        ("::ffff:127.0.0.1", None, True),
        ("::ffff:8.8.8.8", None, False),
        ("203.0.113.7", None, False),
        ("8.8.8.8", None, False),
        ("2a00:1450::1", None, False),
        ("0.1.0.1", None, False),  # cron
        ("127.0.0.1", "8.8.8.8", False),
        ("0.1.0.2", "10.0.0.1", False),
    ],
)
def test_the_address_counts_where_it_is_visible(post: Poster, address: str, user_ip: str | None, opens: bool) -> None:
    if address == "203.0.113.7":
        address = "93.184.216.34"
    headers = QUEUE if user_ip is None else {**QUEUE, "X-AppEngine-User-IP": user_ip}
    assert AppEngineDoor().admits(post(headers=headers, remote_addr=address)) is opens


def test_either_header_of_the_queue_is_enough_and_an_empty_one_is_none(post: Poster, app_engine: None) -> None:
    opens = [
        AppEngineDoor().admits(post(headers=headers))
        for headers in ({"X-AppEngine-TaskName": "t"}, {"x-appengine-queuename": "q"}, {"X-AppEngine-TaskName": ""}, {})
    ]
    assert opens == [True, True, False, False]


def test_app_engines_headers_open_nothing_elsewhere(post: Poster) -> None:
    with in_memory(doors=["appengine"]):
        assert handle(post()).status == 403


# --- the local queue --------------------------------------------------------------------------------------------------


def test_the_secret_of_the_local_queue_opens(post: Poster) -> None:
    with in_memory(**LOCAL) as queue:
        defer(note)
        assert handle(post(body_of(queue), headers={"X-Defer-Local-Secret": SECRET})).status == 200
    assert calls == [()]


@pytest.mark.parametrize(
    "headers", [{}, QUEUE, *({"X-Defer-Local-Secret": bad} for bad in ("", "x", SECRET + "x", "\udc80é"))]
)
def test_nothing_else_does(post: Poster, headers: dict[str, str]) -> None:
    with in_memory(**LOCAL) as queue:
        defer(note)
        assert handle(post(body_of(queue), headers=headers)).status == 403
    assert calls == []


def test_the_secret_is_compared_in_constant_time(post: Poster, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((a, b)) or False)
    assert not LocalDoor(secret=SECRET).admits(post(headers={"X-Defer-Local-Secret": "guess"}))
    assert compared == [(b"guess", SECRET.encode())]


def test_the_local_transport_brings_its_door_and_its_secret(post: Poster, tmp_path: object) -> None:
    with configured(transport="local", transport_options={"file": f"{tmp_path}/q.sqlite3"}):
        assert names() == ["local"]
        [door] = configured_doors(current())
        secret = current().the_transport.secret  # type: ignore[attr-defined]
        assert door.admits(post(headers={"X-Defer-Local-Secret": secret}))
        current().the_transport.close()


@pytest.mark.parametrize("door", ["local", "loopback"])
@pytest.mark.parametrize("variable", ["GAE_ENV", "K_SERVICE"])
def test_doors_of_a_laptop_are_refused_on_google_cloud(
    monkeypatch: pytest.MonkeyPatch, door: str, variable: str
) -> None:
    monkeypatch.setenv(variable, "x")
    settings = {**LOCAL, "doors": [door]} if door == "local" else {"doors": [door]}
    with in_memory(**settings, keys=["k" * 20]), pytest.raises(ConfigError, match=r"door.*Google Cloud"):
        names()


def test_an_empty_secret_is_refused() -> None:
    with in_memory(doors=["local"], door_options={"local": {"secret": ""}}), pytest.raises(ConfigError, match="empty"):
        names()


# --- signed doors -----------------------------------------------------------------------------------------------------

STRIPPED = {"Authorization": "Bearer eyJh.eyJz.SIGNATURE_REMOVED_BY_GOOGLE", "X-CloudTasks-TaskName": "t"}


@pytest.mark.parametrize(
    "door, address, headers, opens",
    [
        ("loopback", "127.0.0.1", {}, True),
        ("loopback", "::1", QUEUE, True),
        ("loopback", "10.0.0.1", {}, False),
        ("loopback", "", {}, False),
        ("loopback", "::ffff:127.0.0.1", {}, True),  # a socket for both versions of IP
        ("loopback", "::ffff:8.8.8.8", {}, False),
        ("loopback", "127.0.0.1", {"X-Forwarded-For": "8.8.8.8"}, False),
        ("loopback", "127.0.0.1", {"Forwarded": "for=8.8.8.8"}, False),
        ("cloud-run-iam", "8.8.8.8", STRIPPED, True),
        ("cloud-run-iam", "8.8.8.8", {"X-Serverless-Authorization": "bearer a.b."}, True),
        ("cloud-run-iam", "8.8.8.8", {"Authorization": "Bearer a.b.c"}, False),
        ("cloud-run-iam", "8.8.8.8", {"Authorization": "Basic a.b."}, False),
        ("cloud-run-iam", "8.8.8.8", {"Authorization": "Bearer SIGNATURE_REMOVED_BY_GOOGLE"}, False),
        ("cloud-run-iam", "127.0.0.1", QUEUE, False),
    ],
)
def test_doors_that_need_signed_tasks(
    post: Poster, door: str, address: str, headers: dict[str, str], opens: bool
) -> None:
    with in_memory(doors=[door], keys=["k" * 20]) as queue:
        defer(note)
        answer = handle(post(body_of(queue), headers=headers, remote_addr=address))
    assert answer.status == (200 if opens else 403)
    assert len(calls) == opens


def test_they_run_nothing_unsigned(post: Poster) -> None:
    with in_memory() as queue:
        defer(note)
        unsigned = body_of(queue)
    with in_memory(doors=["cloud-run-iam"], keys=["k" * 20], accept_legacy_pickles=True):
        import pickle

        for body in (unsigned, pickle.dumps((note, (), {}))):
            assert handle(post(body, headers=STRIPPED)).status == 200
        store = current().the_store
        assert store is not None
        assert {record.reason for record in store.list(State.DEAD)} == {"unverified"}
    assert calls == []


# --- a site's own -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("day, status", [("Tuesday", 200), ("Monday", 403)])
def test_a_sites_own_door(post: Poster, day: str, status: int) -> None:
    with in_memory(doors=[OnTuesdays()]) as queue:
        defer(note)
        assert handle(post(body_of(queue), headers={"X-Day": day})).status == status


def test_configure_replaces_the_doors(post: Poster) -> None:
    configure(transport="memory", doors=[OnTuesdays()])
    assert names() == ["on-tuesdays"]
    configure(transport="memory")
    assert names() == []
