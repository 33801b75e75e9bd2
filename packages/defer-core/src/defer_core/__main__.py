"""`python -m defer_core sweep` and `python -m defer_core dead …`, for plain Python services."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .config import current
from .errors import ConfigError, DeferError
from .sweep import sweep


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m defer_core", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sweeping = commands.add_parser("sweep", help="send what a crash left behind")
    sweeping.add_argument("--budget", type=float, help="seconds after which to stop")
    arguments = parser.parse_args(argv)
    try:
        if not current().stores:
            raise ConfigError("No store is configured: set DEFER_TRANSPORT or DEFER_STORE.")
        print(sweep(budget=arguments.budget))
    except DeferError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
