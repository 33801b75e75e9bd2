"""What `manage.py shell` is given on its command line is in no module that a worker could import."""

from __future__ import annotations

import os
import subprocess
import sys

SHELL = '''
import django
from django.conf import settings
from django.core.management import call_command

settings.configure(
    SECRET_KEY="k" * 50, USE_TZ=True, DEFER={"TRANSPORT": "memory"}, INSTALLED_APPS=["defer_django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
call_command("shell", verbosity=0, command="""
import dataclasses
from defer_core import defer
from defer_core.testing import in_memory
def task(*args): pass
@dataclasses.dataclass
class Card: name: str
for func, *args in ((task,), (Card, 1), (print, task), (print, Card(1)), (print, {1: [Card(1)]})):
    try:
        with in_memory(store="memory"):
            print(defer(func, *args))
    except TypeError as error:
        print("refused", "`__main__`" in str(error))
""")
'''


def test_it_is_refused() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "DEFER"))}
    done = subprocess.run([sys.executable, "-c", SHELL], capture_output=True, text=True, env=environ, check=False)
    assert done.stdout.splitlines() == ["refused True"] * 5, done.stdout + done.stderr
