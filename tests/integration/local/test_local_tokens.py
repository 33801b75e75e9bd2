"""HTTP targets with an OIDC token: a configuration of Cloud Run on the local Cloud Tasks server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import jwt
import pytest
from google.api_core import exceptions
from google.cloud import tasks_v2

from defer_core import ConfigError, clock, configure, defer
from defer_core.config import reset
from defer_core.stores.sqlite import SQLiteTaskStore
from defer_core.transports.cloud.transport import CloudTasksTransport
from defer_gae_handler import make_application
from defer_gae_handler.authenticators import configured_authenticators
from defer_local import Dispatcher
from defer_local.cloud.server import CloudTasksServer

ACCOUNT = "queue@shop.iam.gserviceaccount.com"
QUEUE = "projects/shop/locations/europe-west1/queues/default"
RAN: list[object] = []


def work(value: object) -> None:
    RAN.append(value)


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class Site:
    """A server that keeps what it was sent, and answers with what `app` (else each status of `statuses`) says."""

    def __init__(self) -> None:
        self.app: Any = None
        self.statuses: list[int] = []
        self.asked: list[dict[str, Any]] = []
        self.server: WSGIServer = make_server("127.0.0.1", 0, self, handler_class=Quiet)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.asked.append(environ)
        if self.app is not None:
            return self.app(environ, start_response)
        start_response(f"{self.statuses.pop(0) if self.statuses else 200} so", [("Content-Length", "0")])
        return []

    def stop(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def tokens(self) -> list[str]:
        told = [environ.get("HTTP_AUTHORIZATION") for environ in self.asked]
        return [each.removeprefix("Bearer ") for each in told if each is not None]


@pytest.fixture
def site() -> Iterator[Site]:
    RAN.clear()
    site = Site()
    yield site
    site.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CloudTasksServer]:
    with CloudTasksServer(file=tmp_path / "queue.sqlite3") as server:
        server.provide(QUEUE)
        yield server


@pytest.fixture
def client(server: CloudTasksServer) -> Iterator[tasks_v2.CloudTasksClient]:
    import grpc
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
    yield tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
    channel.close()


def deliver(server: CloudTasksServer, target: str = "http://127.0.0.1:1") -> None:
    Dispatcher(file=server.queue.file.path, target=target).run_until_idle()


def keys_of(server: CloudTasksServer) -> dict[str, Any]:
    with urlopen(server.issuer.certs_url, timeout=10) as answer:
        return dict(json.load(answer))


def claims(token: str, server: CloudTasksServer) -> dict[str, Any]:
    """What a token says whose signature is that of the published key."""
    [key] = keys_of(server)["keys"]
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "JWT", "kid": key["kid"]}
    options: Any = {"verify_aud": False, "verify_exp": False, "verify_iat": False}
    return jwt.decode(token, jwt.PyJWK.from_dict(key).key, algorithms=["RS256"], options=options)


def create(client: tasks_v2.CloudTasksClient, url: str, email: str = ACCOUNT, **request: Any) -> None:
    token = {"service_account_email": email, **request.pop("token", {})}
    client.create_task(parent=QUEUE, task=tasks_v2.Task(http_request={"url": url, "oidc_token": token, **request}))


# --- the token --------------------------------------------------------------------------------------------------------


def test_a_token_says_whose_it_is_and_for_whom(
    client: tasks_v2.CloudTasksClient, server: CloudTasksServer, site: Site
) -> None:
    before = int(clock.now())
    create(client, f"{site.url}/run?a=1&b=%20", token={"audience": "https://shop.example"})
    deliver(server)
    [told] = [claims(each, server) for each in site.tokens()]
    assert (told["iss"], told["aud"], told["email"]) == (server.issuer.url, "https://shop.example", ACCOUNT)
    assert told["email_verified"] is True
    assert told["sub"] == told["azp"]
    assert told["sub"].isdigit()
    assert before <= told["iat"] <= clock.now()
    assert told["exp"] == told["iat"] + 3600
    assert "X-DEFER" not in str(site.asked).upper().replace("_", "-")


def test_without_an_audience_it_is_for_the_url_with_its_query(
    client: tasks_v2.CloudTasksClient, server: CloudTasksServer, site: Site
) -> None:
    create(client, f"{site.url}/run?a=1&b=%20")
    deliver(server)
    assert claims(site.tokens()[0], server)["aud"] == f"{site.url}/run?a=1&b=%20"


def test_a_token_takes_the_place_of_the_tasks_own_authorization(
    client: tasks_v2.CloudTasksClient, server: CloudTasksServer, site: Site
) -> None:
    create(client, site.url, headers={"authorization": "Basic c2hvcA==", "X-Own": "1"})
    deliver(server)
    assert site.asked[0]["HTTP_X_OWN"] == "1"
    assert claims(site.tokens()[0], server)["email"] == ACCOUNT
    [told] = site.asked
    assert "Basic" not in str(told)


def test_each_attempt_has_a_token_of_its_own(
    client: tasks_v2.CloudTasksClient, server: CloudTasksServer, site: Site
) -> None:
    site.statuses = [403]
    client.update_queue(queue=tasks_v2.Queue(name=QUEUE, retry_config={"min_backoff": {"seconds": 7200}}))
    create(client, site.url)
    dispatcher = Dispatcher(file=server.queue.file.path, target="http://127.0.0.1:1")
    with pytest.raises(TimeoutError):
        dispatcher.run_until_idle(timeout=2)
    later = clock.now() + 7201
    with clock.replaced(lambda: later):
        dispatcher.run_until_idle()
    first, second = (claims(each, server) for each in site.tokens())
    assert first["exp"] < later < second["exp"]


def test_other_tasks_have_no_token(client: tasks_v2.CloudTasksClient, server: CloudTasksServer, site: Site) -> None:
    client.create_task(parent=QUEUE, task=tasks_v2.Task(http_request={"url": site.url}))
    client.create_task(parent=QUEUE, task=tasks_v2.Task(app_engine_http_request={"relative_uri": "/run"}))
    headers = {"Authorization": "Bearer own"}
    client.create_task(parent=QUEUE, task=tasks_v2.Task(http_request={"url": site.url, "headers": headers}))
    deliver(server, site.url)
    assert len(site.asked) == 3
    assert site.tokens() == ["own"]


def test_what_makes_no_sense_is_refused(client: tasks_v2.CloudTasksClient, site: Site) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="service_account_email"):
        create(client, site.url, email="", token={"audience": "x"})
    request = {"url": site.url, "oauth_token": {"service_account_email": ACCOUNT}}
    with pytest.raises(exceptions.MethodNotImplemented, match="only Google issues"):
        client.create_task(parent=QUEUE, task=tasks_v2.Task(http_request=request))


# --- the issuer -------------------------------------------------------------------------------------------------------


def test_the_issuer_can_be_discovered(server: CloudTasksServer) -> None:
    with urlopen(f"{server.issuer.url}/.well-known/openid-configuration", timeout=10) as answer:
        told = json.load(answer)
    assert (told["issuer"], told["jwks_uri"]) == (server.issuer.url, server.issuer.certs_url)
    assert "google" not in json.dumps(told).lower()
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{server.issuer.url}/secret", timeout=10)
    refused.value.close()
    assert refused.value.code == 404
    assert set(keys_of(server)["keys"][0]) == {"kty", "n", "e", "kid", "alg", "use", "key_ops"}  # the public parts


def test_the_key_outlives_the_server_and_other_dispatchers_sign_with_it(
    client: tasks_v2.CloudTasksClient, server: CloudTasksServer, site: Site
) -> None:
    create(client, site.url)
    with CloudTasksServer(file=server.queue.file.path) as again:
        assert keys_of(again) == keys_of(server)
        deliver(again)
        assert claims(site.tokens()[0], server)["iss"] == again.issuer.url


def test_a_port_in_use_is_named(server: CloudTasksServer, tmp_path: Path) -> None:
    port = int(server.issuer.url.rpartition(":")[2])
    for taken in (port, 65536):
        with pytest.raises(ConfigError, match=f"127.0.0.1:{taken}.*--issuer"):
            CloudTasksServer(file=tmp_path / "other.sqlite3", issuer_port=taken)


# --- the authenticator ------------------------------------------------------------------------------------------------


@pytest.fixture
def cloud_run(server: CloudTasksServer, site: Site, tmp_path: Path) -> Iterator[Any]:
    """The configuration of a service on Cloud Run; its authenticator trusts whom `more` says."""
    transport = CloudTasksTransport(
        project="shop",
        location="europe-west1",
        base_url=site.url,
        service_account_email=ACCOUNT,
        emulator_host=f"127.0.0.1:{server.port}",
    )
    store = SQLiteTaskStore(file=tmp_path / "store.sqlite3")

    def run(**more: Any) -> None:
        authenticator = {"audience": site.url, "email": ACCOUNT, **more}
        configure(
            transport=transport,
            store=store,
            keys=["a secret of the tests"],
            authenticators=["oidc"],
            authenticator_options={"oidc": authenticator},
            sweep_interval=0,
        )
        site.app = make_application()

    yield run
    transport.close()
    store.close()
    reset()


def test_the_authenticator_accepts_an_issuer_that_is_configured(server: CloudTasksServer, cloud_run: Any) -> None:
    cloud_run(issuers=server.issuer.url, certs_url=server.issuer.certs_url)
    defer(work, 1)
    deliver(server)
    assert RAN == [1]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"audience": "https://other.example"},
        {"email": "other@shop.iam.gserviceaccount.com"},
        {"issuers": "https://x"},
    ],
)
def test_it_stays_shut_otherwise(server: CloudTasksServer, cloud_run: Any, site: Site, wrong: dict[str, str]) -> None:
    local = {"issuers": server.issuer.url, "certs_url": server.issuer.certs_url}
    cloud_run(**({**local, **wrong} if wrong else {}))
    defer(work, 1, _retry_options={"max_attempts": 1})
    deliver(server)
    assert RAN == []
    assert len(site.tokens()) == 1


@pytest.mark.parametrize(("variable", "value"), [("K_SERVICE", "shop"), ("GAE_ENV", "standard")])
@pytest.mark.parametrize("which", ["issuers", "certs_url"])
def test_a_local_issuer_is_refused_on_google_cloud(
    server: CloudTasksServer, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, which: str
) -> None:
    local = {"issuers": ["https://accounts.google.com", server.issuer.url], "certs_url": server.issuer.certs_url}
    authenticator = {"audience": "https://shop.example", "email": ACCOUNT, which: local[which]}
    config = configure(
        transport="memory", store="memory", authenticators=["oidc"], authenticator_options={"oidc": authenticator}
    )
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=r"trusts http://127\.0\.0\.1:\d+.*Google alone"):
        configured_authenticators(config)
    reset()


# --- queues that are there at the start -------------------------------------------------------------------------------


def test_a_queue_is_provided_by_its_short_name_as_well(
    client: tasks_v2.CloudTasksClient, server: CloudTasksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOOGLE_CLOUD_PROJECT", "CLOUD_TASKS_PROJECT_ID", "CLOUD_TASKS_LOCATION"):
        monkeypatch.delenv(name, raising=False)
    server.provide("mail")
    monkeypatch.setenv("CLOUD_TASKS_PROJECT_ID", "shop")
    monkeypatch.setenv("CLOUD_TASKS_LOCATION", "europe-west1")
    server.provide("mail")
    for name in ("projects/local/locations/local/queues/mail", "projects/shop/locations/europe-west1/queues/mail"):
        assert client.get_queue(name=name).rate_limits.max_dispatches_per_second == 500
    for wrong in ("a_b", "", "projects/shop/queues/x", "a/b/c"):
        with pytest.raises(ConfigError, match="cannot be made"):
            server.provide(wrong)


def test_a_queue_that_is_there_keeps_its_settings_and_a_deleted_one_comes_back(
    client: tasks_v2.CloudTasksClient, server: CloudTasksServer
) -> None:
    client.update_queue(queue=tasks_v2.Queue(name=QUEUE, rate_limits={"max_dispatches_per_second": 3}))
    client.pause_queue(name=QUEUE)
    server.provide(QUEUE)
    kept = client.get_queue(name=QUEUE)
    assert (kept.rate_limits.max_dispatches_per_second, kept.state) == (3, tasks_v2.Queue.State.PAUSED)
    client.delete_queue(name=QUEUE)
    server.provide(QUEUE)
    assert client.get_queue(name=QUEUE).state == tasks_v2.Queue.State.RUNNING
