"""Whether each wheel has every file of its package's sources, and nothing else.

python .ci/contents.py dist
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """End with an error that names the files."""
    dist, wrong = Path(sys.argv[1]), []
    for package in sorted(ROOT.glob("packages/*")):
        [wheel] = dist.glob(f"{package.name.replace('-', '_')}-*.whl")
        with zipfile.ZipFile(wheel) as opened:
            built = {name for name in opened.namelist() if ".dist-info/" not in name}
        listed = subprocess.check_output(["git", "ls-files", "src", "*.pth"], cwd=package, text=True)
        sources = {name.removeprefix("src/") for name in listed.splitlines()}
        wrong += [f"{wheel.name}: {name}" for name in sorted(built ^ sources)]
    if wrong:
        sys.exit("\n".join(["In the wheel or in the sources alone:", *wrong]))


if __name__ == "__main__":
    main()
