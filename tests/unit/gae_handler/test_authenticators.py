"""Which authenticators are configured, what each accepts and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.gae_handler.conftest import Poster
from unit.gae_handler.handled import QUEUE, body_of, calls, note

from defer_core import ConfigError, configure, defer
from defer_core.spi import State, current
from defer_core.testing import configured, in_memory
from defer_gae_handler import Authenticator, Request, handle
from defer_gae_handler.authenticators import configured_authenticators
from defer_gae_handler.authenticators.appengine import AppEngineHeaders
from defer_gae_handler.authenticators.local import LocalSecret

SECRET = "s3cret-of-the-queue"
LOCAL = {"authenticators": ["local"], "authenticator_options": {"local": {"secret": SECRET}}}


def names() -> list[str]:
    return [authenticator.name for authenticator in configured_authenticators(current())]


class OnTuesdays(Authenticator):
    """A site's own."""

    name = "on-tuesdays"

    def accepts(self, request: Request) -> bool:
        return request.headers.get("X-Day") == "Tuesday"


# --- which there are --------------------------------------------------------------------------------------------------


def test_no_authenticator_is_there_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names() == []
    monkeypatch.setenv("K_SERVICE", "shop")
    assert names() == []


def test_app_engines_is_there_on_app_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names() == []
    monkeypatch.setenv("GAE_ENV", "standard")
    assert names() == ["appengine"]


def test_what_is_configured_is_all_there_is(app_engine: None) -> None:
    with in_memory(authenticators=["unit.gae_handler.test_authenticators:OnTuesdays"]):
        assert names() == ["on-tuesdays"]
    with in_memory(authenticators=[]):
        assert names() == []


def test_the_environment_can_name_authenticators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFER_AUTHENTICATORS", "appengine")
    assert names() == ["appengine"]


@pytest.mark.parametrize("spec", ["nowhere", "unit.gae_handler.handled:Authenticator", 7])
def test_an_authenticator_that_is_not_there_is_said_at_start_up(spec: object) -> None:
    with in_memory(authenticators=[spec]), pytest.raises(ConfigError, match=r"nowhere|handled:Authenticator|7"):
        names()


def test_options_of_an_authenticator_that_is_not_there_are_said_at_start_up() -> None:
    with (
        in_memory(authenticators=["local"], authenticator_options={"odic": {}}),
        pytest.raises(ConfigError, match=r"'odic'.*'oidc'\?"),
    ):
        names()


@pytest.mark.parametrize("authenticator", ["cloud-run-iam", "loopback"])
def test_an_authenticator_that_needs_signatures_needs_keys(authenticator: str) -> None:
    with in_memory(authenticators=[authenticator]), pytest.raises(ConfigError, match="keys"):
        names()


# --- App Engine -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("app_engine")
@pytest.mark.parametrize(
    "address, user_ip, accepted",
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
def test_the_address_counts_where_it_is_visible(
    post: Poster, address: str, user_ip: str | None, accepted: bool
) -> None:
    if address == "203.0.113.7":
        address = "93.184.216.34"
    headers = QUEUE if user_ip is None else {**QUEUE, "X-AppEngine-User-IP": user_ip}
    assert AppEngineHeaders().accepts(post(headers=headers, remote_addr=address)) is accepted


def test_either_header_of_the_queue_is_enough_and_an_empty_one_is_none(post: Poster, app_engine: None) -> None:
    accepted = [
        AppEngineHeaders().accepts(post(headers=headers))
        for headers in ({"X-AppEngine-TaskName": "t"}, {"x-appengine-queuename": "q"}, {"X-AppEngine-TaskName": ""}, {})
    ]
    assert accepted == [True, True, False, False]


def test_app_engines_headers_open_nothing_elsewhere(post: Poster) -> None:
    with in_memory(authenticators=["appengine"]):
        assert handle(post()).status == 403


# --- the local queue --------------------------------------------------------------------------------------------------


def test_the_secret_of_the_local_queue_accepted(post: Poster) -> None:
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
    assert not LocalSecret(secret=SECRET).accepts(post(headers={"X-Defer-Local-Secret": "guess"}))
    assert compared == [(b"guess", SECRET.encode())]


@pytest.mark.defer_real
def test_the_local_transport_brings_its_authenticator_and_its_secret(post: Poster, tmp_path: object) -> None:
    with configured(transport="local", transport_options={"file": f"{tmp_path}/q.sqlite3"}):
        assert names() == ["local"]
        [authenticator] = configured_authenticators(current())
        secret = current().the_transport.secret  # type: ignore[attr-defined]
        assert authenticator.accepts(post(headers={"X-Defer-Local-Secret": secret}))
        current().the_transport.close()


@pytest.mark.defer_real
def test_the_secret_is_that_of_the_file_that_is_there_now(post: Poster, tmp_path: Path) -> None:
    with configured(transport="local", transport_options={"file": f"{tmp_path}/q.sqlite3"}):
        [authenticator] = configured_authenticators(current())
        before = current().the_transport.secret  # type: ignore[attr-defined]
        for path in tmp_path.iterdir():
            path.unlink()
        secret = current().the_transport.secret  # type: ignore[attr-defined]
        assert secret != before
        assert authenticator.accepts(post(headers={"X-Defer-Local-Secret": secret}))
        assert not authenticator.accepts(post(headers={"X-Defer-Local-Secret": before}))
        current().the_transport.close()


@pytest.mark.parametrize("authenticator", ["local", "loopback"])
@pytest.mark.parametrize("variable", ["GAE_ENV", "K_SERVICE"])
def test_authenticators_of_a_laptop_are_refused_on_google_cloud(
    monkeypatch: pytest.MonkeyPatch, authenticator: str, variable: str
) -> None:
    monkeypatch.setenv(variable, "x")
    settings = (
        {**LOCAL, "authenticators": [authenticator]}
        if authenticator == "local"
        else {"authenticators": [authenticator]}
    )
    with in_memory(**settings, keys=["k" * 20]), pytest.raises(ConfigError, match=r"authenticator.*Google Cloud"):
        names()


def test_an_empty_secret_is_refused() -> None:
    with (
        in_memory(authenticators=["local"], authenticator_options={"local": {"secret": ""}}),
        pytest.raises(ConfigError, match="empty"),
    ):
        names()


# --- signed tasks -----------------------------------------------------------------------------------------------------

STRIPPED = {"Authorization": "Bearer eyJh.eyJz.SIGNATURE_REMOVED_BY_GOOGLE", "X-CloudTasks-TaskName": "t"}


@pytest.mark.parametrize(
    "authenticator, address, headers, accepted",
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
def test_authenticators_that_need_signed_tasks(
    post: Poster, authenticator: str, address: str, headers: dict[str, str], accepted: bool
) -> None:
    with in_memory(authenticators=[authenticator], keys=["k" * 20]) as queue:
        defer(note)
        answer = handle(post(body_of(queue), headers=headers, remote_addr=address))
    assert answer.status == (200 if accepted else 403)
    assert len(calls) == accepted


def test_they_run_nothing_unsigned(post: Poster) -> None:
    with in_memory() as queue:
        defer(note)
        unsigned = body_of(queue)
    with in_memory(authenticators=["cloud-run-iam"], keys=["k" * 20], accept_legacy_pickles=True):
        import pickle

        for body in (unsigned, pickle.dumps((note, (), {}))):
            assert handle(post(body, headers=STRIPPED)).status == 200
        store = current().the_store
        assert store is not None
        assert {record.reason for record in store.list(State.DEAD)} == {"unverified"}
    assert calls == []


# --- why not ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authenticator", "headers", "address", "why"),
    [
        ("appengine", {}, "0.1.0.2", "appengine: no task headers (X-AppEngine-TaskName"),
        ("appengine", QUEUE, "8.8.8.8", "appengine: wrong address (8.8.8.8, expected 0.1.0.2)"),
        ("local", {}, "", "local: no X-Defer-Local-Secret"),
        ("local", {"X-Defer-Local-Secret": "wrong-secret"}, "", "local: wrong X-Defer-Local-Secret (this server and"),
        ("loopback", {}, "10.0.0.1", "loopback: wrong address (10.0.0.1, expected this machine's)"),
        ("loopback", {"Via": "x"}, "127.0.0.1", "loopback: came through a proxy (Via)"),
        ("cloud-run-iam", {}, "", "cloud-run-iam: no token"),
        ("cloud-run-iam", {"Authorization": "Bearer a.b.wrong-secret"}, "", "token not checked by Cloud Run"),
        ("unit.gae_handler.test_authenticators:OnTuesdays", {}, "", "on-tuesdays: not accepted"),
    ],
)
def test_an_authenticator_says_why_it_refuses(
    post: Poster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    authenticator: str, headers: dict[str, str], address: str, why: str,
) -> None:  # fmt: skip
    if authenticator == "appengine":
        monkeypatch.setenv("GAE_ENV", "standard")
    options = LOCAL["authenticator_options"] if authenticator == "local" else {}
    with in_memory(authenticators=[authenticator], authenticator_options=options, keys=["k" * 20]):
        assert handle(post(headers=headers, remote_addr=address)).status == 403
    [line] = caplog.records
    assert line.levelname == "WARNING" and why in line.getMessage()
    assert "wrong-secret" not in caplog.text and SECRET not in caplog.text


def test_every_authenticator_says_why_it_refuses(post: Poster, caplog: pytest.LogCaptureFixture) -> None:
    with in_memory(authenticators=["appengine", "loopback"], keys=["k" * 20]):
        assert handle(post(headers={}, remote_addr="6.6.6.6")).status == 403
    assert "appengine: not on App Engine (GAE_ENV); loopback: wrong address (6.6.6.6, " in caplog.messages[0]


def test_the_answer_says_why_without_what_only_the_log_may_have(post: Poster) -> None:
    with in_memory(authenticators=["appengine", OnTuesdays(), "loopback"], keys=["k" * 20]):
        answer = handle(post(headers={}, remote_addr="6.6.6.6"))
    assert answer.body == (
        b"forbidden: no authenticator accepted the request "
        b"(appengine: not on App Engine; on-tuesdays: not accepted; loopback: wrong address)"
    )


# --- a site's own -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("day, status", [("Tuesday", 200), ("Monday", 403)])
def test_a_sites_own_authenticator(post: Poster, day: str, status: int) -> None:
    with in_memory(authenticators=[OnTuesdays()]) as queue:
        defer(note)
        assert handle(post(body_of(queue), headers={"X-Day": day})).status == status


def test_configure_replaces_the_authenticators(post: Poster) -> None:
    configure(transport="memory", authenticators=[OnTuesdays()])
    assert names() == ["on-tuesdays"]
    configure(transport="memory")
    assert names() == []
