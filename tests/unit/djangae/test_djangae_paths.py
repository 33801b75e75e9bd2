"""Where `import djangae` leads: to the shims, unless a real Djangae is there; as a wheel, in a folder, editable."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[3] / "packages"
IMPORTS = """
import djangae, defer_djangae
from djangae.tasks.deferred import defer, defer_iteration_with_finalize, PermanentTaskFailure
from djangae.deferred import DEFERRED_ITERATION_SHARD_INDEX_KEY
print(defer_djangae.live(), djangae.__file__)
"""
LIVE = "import defer_djangae, djangae; print(defer_djangae.live(), djangae.__file__)"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    return Path(
        next(iter(WheelBuilder(str(ROOT / "defer-djangae")).build(directory=str(folder), versions=["standard"])))
    )


@pytest.fixture
def site(tmp_path):
    """An empty site-packages folder."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    return folder


def unpack(wheel, folder):
    """What installing a wheel without scripts comes to; the packages it needs are those of this environment."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)


def run(code, site):
    """Run code with `site` as the one site-packages folder of ours, its .pth files followed."""
    needed = [str(ROOT / name / "src") for name in ("defer-core", "defer-django", "defer-iteration")]
    installed = [each for each in sys.path if each.endswith("site-packages")]
    start = (
        f"import site, sys; sys.path += {needed}; sys.path.insert(0, {str(site)!r}); site.addsitedir({str(site)!r})\n"
    )
    start += f"sys.path += {installed}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-S", "-c", start + code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def real_djangae(folder):
    """A stand-in for the real one, as its wheel or a source folder lays it out."""
    package = folder / "djangae"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("VERSION = 'real'\n")
    return package


def test_the_wheel_alone_gives_the_names(wheel, site):
    unpack(wheel, site)
    live, file = run(IMPORTS, site)
    assert live == "shim"
    assert Path(file) == site / "defer_djangae/_paths/djangae/__init__.py"


def test_the_wheel_has_nothing_named_djangae_at_its_root_and_a_path_only_pth_that_sorts_last(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.partition("/")[0] for name in names}
    assert {each for each in roots if not each.endswith(".dist-info")} == {"defer_djangae", "zzz_defer_djangae.pth"}
    assert zipfile.ZipFile(wheel).read("zzz_defer_djangae.pth").decode().split() == ["defer_djangae/_paths"]


def test_a_real_djangae_in_site_packages_wins_and_is_left_whole_in_both_orders(wheel, tmp_path):
    for first in ("real", "shim"):
        folder = tmp_path / first
        folder.mkdir()
        if first == "real":
            real_djangae(folder)
            unpack(wheel, folder)
        else:
            unpack(wheel, folder)
            real_djangae(folder)
        assert run(LIVE, folder) == [str(folder / "djangae"), str(folder / "djangae/__init__.py")]
        assert os.listdir(folder / "djangae") == ["__init__.py"]


@pytest.mark.parametrize("pth", ["djangae.pth", "easy-install.pth", "__editable__.djangae-2.0.pth", "_djangae.pth"])
def test_a_real_djangae_on_a_path_file_wins(wheel, site, tmp_path, pth):
    unpack(wheel, site)
    real_djangae(tmp_path / "source")
    (site / pth).write_text(f"{tmp_path / 'source'}\n")
    assert run(LIVE, site)[0] == str(tmp_path / "source/djangae")


def test_after_the_real_one_is_uninstalled_the_shims_are_live(wheel, site):
    unpack(wheel, site)
    package = real_djangae(site)
    (package / "__init__.py").unlink()
    (package / "__pycache__").mkdir()
    assert run(IMPORTS, site)[0] == "shim"


def test_in_a_target_folder_install_paths_does_what_no_pth_does(wheel, tmp_path):
    unpack(wheel, tmp_path / "lib")
    start = f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r})\n"
    code = "from defer_djangae import *; print(live()); install_paths(); install_paths()\n"
    (tmp_path / "empty").mkdir()
    before, live, file = run(start + code + IMPORTS + "assert sys.path.count(sys.path[-1]) == 1", tmp_path / "empty")
    assert (before, live) == ("missing", "shim")
    assert file.startswith(str(tmp_path / "lib"))


def test_an_editable_install_names_both_folders(tmp_path):
    built = next(iter(WheelBuilder(str(ROOT / "defer-djangae")).build(directory=str(tmp_path), versions=["editable"])))
    archive = zipfile.ZipFile(built)
    pth = next(name for name in archive.namelist() if name.endswith(".pth") and not name.startswith("zzz"))
    source = ROOT / "defer-djangae/src"
    assert archive.read(pth).decode().split() == [str(source), str(source / "defer_djangae/_paths")]


def test_the_names_import_without_django_and_without_settings(wheel, site):
    unpack(wheel, site)
    assert run(IMPORTS + "import sys; print('django' in sys.modules)", site)[-1] == "False"
