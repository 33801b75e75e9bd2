"""`python -m defer_gae_handler vendor lib/`: copy handler and core into a service's own tree."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from defer_core.errors import ConfigError

from .vendor import vendor


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0 done, 1 refused (the reason is on stderr)."""
    parser = argparse.ArgumentParser(prog="python -m defer_gae_handler", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    copying = commands.add_parser("vendor", help="copy handler, core and msgpack (pure Python) into a folder")
    copying.add_argument("folder", type=Path, help="a folder that the service puts on sys.path, such as lib/")
    arguments = parser.parse_args(argv)
    try:
        for copy in vendor(arguments.folder):
            print(f"copied {copy}")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
