"""How each block of the documents is run: by document and beginning of its first line.

A block that is in no table fails its test, and so does an entry that no block begins with.
"""

from __future__ import annotations

SHOP = "from outside.supposed.shop import *\n"
MEMORY = "from defer_core import configure, defer\nconfigure(transport='memory', store='memory', keys=['k' * 16]{})\n"
LOOPBACK = MEMORY.format(", authenticators=['loopback']")
KEPT = "it is for a site that keeps a real Djangae, which the tests of defer-djangae stand in for"

ADAPTERS = "import os, sys\nsys.path.insert(0, os.path.join(os.environ['ROOT'], 'examples', 'adapters'))\n"

PYTHON: dict[str, tuple[str, str]] = {
    "README.md: from defer_core import defer": (
        SHOP,
        "assert deliver() == 2 and LedgerEntry.objects.count() == 1 and not Order.objects.get(pk=order.pk).open",
    ),
    "README.md: from defer_iteration": (SHOP, "assert deliver() > 2 and LedgerEntry.objects.count() == 2"),
    "docs/adapters.md: configure(": (
        f"{ADAPTERS}from defer_core import configure",
        "from defer_core.spi import current\nassert current().the_transport.name == 'folder'",
    ),
    'docs/adapters.md: """A store in one file': (
        "",
        "FileStore(file='tasks').put([])\nassert FileStore(file='tasks').count('dead') == 0",
    ),
    'docs/adapters.md: """A queue in a folder': (
        "",
        "name = FolderTransport(folder='in').send(Message(body=b''))\nassert os.listdir('in/default') == [name]",
    ),
    "docs/from-djangae.md: import defer_djangae": ("", "assert defer_djangae.live() == 'shim'"),
    "docs/from-djangae.md: defer_iteration_with_finalize(": (
        f"{SHOP}from djangae.deferred import defer_iteration_with_finalize\n"
        "queryset = Order.objects.all()\nWALKED = []\n"
        "def callback(order, *args): WALKED.append(args)\ndef finalize(*args): pass\n"
        "def my_ranges(queryset, shards): return [(None, None)]\n",
        "deliver()\nassert sorted(WALKED) == [(), (), (), (), ('extra', 7), ('extra', 7)]",
    ),
    "docs/from-google-deferred.md: from google.appengine.ext import": ("", "assert deferred.defer"),
    "docs/from-google-deferred.md: from defer_core import": ("", ""),
    "docs/from-google-deferred.md: configure(": ("from defer_core import configure", ""),
    "docs/google-cloud.md: configure(": (
        "import os\nfrom defer_core import configure\nos.environ['TASK_KEY'] = 'k' * 16\n",
        "from defer_core.config import current\n"
        "assert current().the_transport.target.parent.startswith('projects/shop/')",
    ),
    "docs/keys.md: configure(": ("from defer_core import configure", ""),
    "docs/monitoring.md: from opentelemetry import metrics, trace": (
        "",
        f"{MEMORY.format('')}from defer_core.testing import drain\ndefer(print, 'ran')\nassert drain().done == 1\n"
        "assert tracing.force_flush() and metrics.get_meter_provider().force_flush()",
    ),
    "docs/operations.md: from defer_core import health": (
        f"import flask\n{MEMORY.format('')}app = flask.Flask('shop')\n",
        "answer = app.test_client().get('/healthz')\n"
        "assert (answer.status_code, answer.json['healthy']) == (200, True)",
    ),
    "docs/operations.md: LOGGING = ": (
        "from django.conf import settings\nsettings.configure()\n"
        f"{MEMORY.format('')}import contextlib, io, json, logging.config\nfrom defer_core.testing import drain\n"
        "def ship(): logging.getLogger('shop').info('packed', extra={'boxes': {1, 2}})\n",
        "with contextlib.redirect_stderr(io.StringIO()) as said:\n"
        "    logging.config.dictConfig(LOGGING)\n    defer(ship)\n    assert drain().done == 1\n"
        "found = [json.loads(line) for line in said.getvalue().splitlines()]\n"
        "own, attempt = (each for each in found if 'task' in each)\n"
        "assert own['boxes'] == [1, 2] and own['task'] == attempt['task'] and attempt['outcome'] == 'done', found",
    ),
    "docs/sources.md: from defer_iteration import defer_iteration_with_finalize": (
        f"{SHOP}from outside.supposed.models import Customer\nimport csv\nfrom pathlib import Path\n"
        "def finish(): pass\n"
        "Path('customers.csv').write_text('number,name\\n8,Grace\\n9,\"Dijkstra, Edsger\"')\n",
        "assert deliver() > 2 and Customer.objects.get(pk=9).name == 'Dijkstra, Edsger'",
    ),
    'docs/sources.md: """The files of a folder': (
        "",
        "for name in 'abc':\n    (Path('rows') / name).mkdir(parents=True)\n"
        "    (Path('rows') / f'{name}.txt').touch()\n"
        "assert [each.lower for each in files('rows')().split(3).ranges] == [('a.txt',), ('b.txt',), ('c.txt',)]",
    ),
    "packages/defer-core/README.md: from defer_core import configure": ("", ""),
    "packages/defer-core/README.md: from defer_core import defer, defer_many": (
        MEMORY.format("") + "RAN = []\ndef resize(*args, **kwargs): RAN.append(args)\n",
        "from defer_core.testing import drain\nassert drain().done == 3 and ('b.jpg',) in RAN",
    ),
    "packages/defer-core/README.md: from defer_core import register_type": (
        "from dataclasses import dataclass\n@dataclass\nclass Money:\n    amount: int\n    currency: str\n",
        "from defer_core.wire import decoder, encoder\n"
        "assert decoder.unpack(encoder.pack(Money(5, 'EUR'))) == Money(5, 'EUR')",
    ),
    "packages/defer-core/README.md: from defer_core import install_signal_handlers": ("", ""),
    "packages/defer-core/README.md: from defer_core.testing": (
        "from defer_core import defer\ndef mail(name): pass\ndef sign_up(name): defer(mail, name)\n",
        "",
    ),
    "packages/defer-djangae/README.md: from djangae.tasks.deferred import": (SHOP, ""),
    "packages/defer-django/README.md: from defer_django import defer": (SHOP, "assert deliver() == 1"),
    "packages/defer-gae-handler/README.md: from defer_gae_handler import wrap_wsgi_app": (
        f"import flask\n{LOOPBACK}app = flask.Flask('shop')\n",
        "assert app.test_client().post('/_ah/queue/deferred').status_code in (400, 411)\n"
        "assert app.test_client().get('/').status_code == 404",
    ),
    "packages/defer-gae-handler/README.md: from defer_gae_handler.asgi import": (
        f"{LOOPBACK}async def app(scope, receive, send): pass\n",
        "",
    ),
    "packages/defer-gae-handler/README.md: from defer_gae_handler import Request": (
        f"import io\nfrom defer_core.config import current\n{LOOPBACK}"
        "def work(): print('it ran')\ndefer(work)\n[task] = current().the_transport.queued()\n"
        "stream, path, address = io.BytesIO(task.message.body), '/_ah/queue/deferred', '127.0.0.1'\n"
        "headers = {'Content-Length': str(len(task.message.body))}\n",
        "assert answer.status == 200, answer",
    ),
    "packages/defer-gae-handler/README.md: from defer_gae_handler import Authenticator": (
        "",
        "from defer_gae_handler import Request\n"
        "told = {'method': 'POST', 'path': '/', 'remote_addr': '', 'read': lambda *_: b''}\n"
        "assert Mesh().accepts(Request(headers={'X-Client-Cert': 'queue.internal'}, **told))\n"
        "assert not Mesh().accepts(Request(headers={}, **told))",
    ),
    "packages/defer-gae-handler/README.md: from defer_gae_handler import google": ("", "assert deferred.defer"),
    "packages/defer-iteration/README.md: from defer_iteration": (
        SHOP,
        "deliver()\nassert Order.objects.filter(price=103).count() == 2",
    ),
    "packages/defer-iteration/README.md: handle = ": (
        f"{SHOP}from defer_iteration import defer_iteration_with_finalize\n"
        "def reprice(order, percent): pass\ndef report(percent): pass\n",
        "assert deliver() > 2 and handle.begun and handle.progress().rows == 2",
    ),
    "packages/defer-iteration/README.md: def reprice_all(": (
        f"{SHOP}from defer_iteration import defer_iteration_with_finalize\ndef report(percent): pass\n",
        "deliver()\nassert Order.objects.filter(price=103).count() == 2",
    ),
    "packages/defer-local/README.md: from defer_local import": (
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return []\n",
        "",
    ),
    "packages/defer-local/README.md: channel =": (
        "import grpc\nfrom google.cloud import tasks_v2\n"
        "from google.cloud.tasks_v2.services.cloud_tasks.transports import "
        "CloudTasksGrpcTransport\nfrom defer_local.cloud.server import CloudTasksServer\n"
        "server = CloudTasksServer(port=8123)\nserver.provide('mail')\nserver.start()\n",
        "[queue] = client.list_queues(parent='projects/local/locations/local')\nchannel.close()\nserver.stop()",
    ),
    "packages/defer-local/README.md: authenticator_options=": (
        "",
        "from defer_gae_handler.authenticators.oidc import OidcToken\nOidcToken(**authenticator_options['oidc'])",
    ),
}
"""What stands before and after a block, in a module of its own."""

PYTEST = {
    "docs/adapters.md: import pytest": ADAPTERS,
    "packages/defer-core/README.md: def test_order(deferred)": "from defer_core import defer\norder = 1\n"
    "def ship(number): pass\ndef refund(): pass\ndef place(order): defer(ship, order, _queue='mail')\n",
    "packages/defer-django/README.md: from defer_django.testing import": "from defer_core import defer\n"
    "from django.conf import settings\nfrom django.http import HttpResponse\nfrom django.test import TestCase\n"
    "from django.urls import path\nsettings.ROOT_URLCONF = __name__\ndef ship(number): pass\n"
    "def orders(request):\n    defer(ship, 1)\n    return HttpResponse(request.POST['article'])\n"
    "urlpatterns = [path('orders/', orders)]\n",
}
"""What stands before a block that is a test, which pytest runs."""

SETTINGS = {
    "docs/authenticators.md: DEFER = ",
    "docs/from-djangae.md: DEFER = ",
    "packages/defer-django/README.md: # settings.py",
    "packages/defer-django/README.md: TASKS = ",
    "packages/defer-gae-handler/README.md: urlpatterns = ",
}
"""Blocks that are added to a project's settings, which `manage.py check` then checks."""

SHELL: dict[str, tuple[str, str, str]] = {
    "docs/dead-letters.md: manage.py defer_dead list": (
        "python manage.py migrate -v 0; python -c 'from outside.supposed.dead import bury; bury()' 2> log",
        "Traceback",
        "",
    ),
    "docs/from-djangae.md: python manage.py check": ("", "Applying defer_django", ""),
    "docs/operations.md: manage.py defer_status": ("python manage.py migrate -v 0", "stores:", ""),
    "docs/from-google-deferred.md: pip install": ("", "Successfully installed", ""),
    "docs/from-google-deferred.md: python -m defer_gae_handler vendor lib/": ("", "defer_core", "ls lib"),
    "docs/google-cloud.md: pip install": ("", "Successfully installed", ""),
    "docs/google-cloud.md: python -m defer_core --app shop.main queues create": (
        "defer-local --grpc 8123 & ready 8123; export CLOUD_TASKS_EMULATOR_HOST=127.0.0.1:8123; mkdir shop\n"
        "echo 'from defer_core import configure' > shop/main.py\n"
        'echo \'configure(transport="cloud", store="memory", queues=["mail"])\' >> shop/main.py',
        "mail",
        "defer-local stats",
    ),
    "examples/shop/README.md: python manage.py migrate": (
        "cp -r $ROOT/examples/shop/. . && python manage.py migrate -v 0",
        "200 in",
        "says '200 in'",
    ),
    "examples/cloud_run/README.md: pip install -r": (
        "cp $ROOT/examples/cloud_run/* .",
        "Hello, world.",
        "says 'Hello, world.'",
    ),
    "examples/prometheus/README.md: pip install -r": (
        "cp $ROOT/examples/prometheus/* .",
        "Traceback",  # of the task that becomes a dead letter
        "says 'Hello, world.' && says 'All rows are counted.' && says defer_outbox_age_seconds",
    ),
    "packages/defer-core/README.md: pip install": ("", "Successfully installed", ""),
    "packages/defer-djangae/README.md: pip uninstall djangae": ("", "Applying defer_iteration", ""),
    "packages/defer-gae-handler/README.md: pip install": ("", "Successfully installed", ""),
    "packages/defer-gae-handler/README.md: python -m defer_gae_handler vendor lib/": ("", "defer_core", "ls lib"),
    "packages/defer-local/README.md: pip install defer-local": ("", "Successfully installed", ""),
    "packages/defer-local/README.md: pip install 'defer-local[grpc]'": (
        "",
        "the Cloud Tasks API",
        "says 'the Cloud Tasks API'",
    ),
    "packages/defer-local/README.md: defer-local --url": (
        "",
        "delivering",
        "says delivering",
    ),
    "packages/defer-local/README.md: defer-local --app": (
        "mkdir mysite; echo 'def application(*_): return []' > mysite/wsgi.py",
        "delivering",
        "says delivering",
    ),
    "packages/defer-local/README.md: defer-local list": (
        "export DEFER_TRANSPORT=local\n"
        "python -c \"from defer_core import defer; defer(print, _queue='mail', _small_task=True)\"",
        "Deleted 1 tasks of mail",
        "",
    ),
}
"""What is run before a block of commands, what is printed then, and what is run after it."""

AS_TYPED = {
    "manage.py defer_dead": "python manage.py defer_dead",
    "manage.py defer_status": "python manage.py defer_status",
    "ID… | all": "all",
    "ID…": "all",
    "defer-local purge mail": "defer-local purge mail --yes",
    "pip uninstall djangae": "pip uninstall --yes djangae",
    "pip install -r requirements.txt 'defer-local[grpc]'": "pip install 'defer-local[grpc]'",  # gunicorn is here
    "pip install -r requirements.txt": "pip install defer-django defer-iteration defer-local",  # and the exporter
}
"""What a reader puts for what is printed."""

SCRIPTS = {
    "README.md: hatch run test ",
    "README.md: python3 -m venv .venv && .venv/bin/pip install hatch && .venv/bin/hatch run demo",
    "README.md: python3 -m venv .venv && .venv/bin/pip install hatch && .venv/bin/hatch run test",
    "benchmarks/README.md: hatch run bench",
    "examples/shop/README.md: hatch run demo",
}
"""Commands of the lanes themselves, of which the names alone are looked up."""

NOT_RUN = {
    "docs/authenticators.md: 403 forbidden": "it is an answer, and a line of a log",
    "docs/dead-letters.md: Task 7f3a… (shop.tasks:ship)": "it is a page of a log",
    "docs/from-djangae.md: INSTALLED_APPS = ": KEPT,
    "docs/from-djangae.md: defer-djangae            # on a laptop": "it is a line of a list of requirements",
    "docs/from-google-deferred.md: app_engine_apis: true": "it is a part of app.yaml, which only App Engine reads",
    "docs/monitoring.md: # DeferOutboxIsLate": "Cloud Monitoring alone reads it; a test compares it with alerts.yml",
    "docs/sweep.md: # cron.yaml": "only App Engine reads it",
    "packages/defer-djangae/README.md: DEFER = ": KEPT,
    "packages/defer-local/README.md: Task 4503599627370496": "it is a page of a log",
}
"""Why a block is not run."""
