#!/usr/bin/env python
"""The museum's manage.py, as Djangae's documentation has it."""

import os
import sys

from djangae.sandbox import start_emulators, stop_emulators

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
    from django.core.management import execute_from_command_line

    start_emulators(persist_data=True, emulators=("tasks",))
    try:
        execute_from_command_line(sys.argv)
    finally:
        stop_emulators()
