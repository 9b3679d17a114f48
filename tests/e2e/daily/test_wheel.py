"""What is installed from the wheel is whole: the program, the published schemas, the sample application of the demo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from hub.manifest import load_template
from tests.e2e.stack import HACKATHON, ROOT

pytestmark = pytest.mark.full

BUILT_FROM = ("hub", "site_agent", "brokers", "bus", "schemas", "examples")
FILES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the wheel, built from a copy of the sources, was installed into without its dependencies."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for name in BUILT_FROM:
        unwanted = shutil.ignore_patterns("__pycache__", ".*_cache")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=unwanted)
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place / "dist"), str(source)])
    [wheel] = (place / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(BUILT_FROM) - {"examples"}
    target = place / "installed"
    _run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)])
    return target


def _run(command: Sequence[str], *, environment: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def _python(installed: Path, *arguments: str) -> str:
    """Python with the installed wheel before the checkout, run from a directory that is no checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    return _run([sys.executable, "-P", *arguments], environment=environment, cwd=installed.parent)


def test_the_program_says_its_version(installed: Path) -> None:
    program = (installed / "bin" / "calque").read_text()
    assert "hub.cli.main" in program
    assert _python(installed, str(installed / "bin" / "calque"), "--version").startswith("calque ")


def test_the_published_schemas_are_in_it(installed: Path) -> None:
    made = ROOT / "schemas" / "generated"
    for file in made.rglob("*.json"):
        assert (installed / "schemas" / "generated" / file.relative_to(made)).read_text() == file.read_text()


def test_the_demo_finds_its_sample_application(installed: Path) -> None:
    find = "import hub.demo.story as s, json; print(json.dumps([s.__file__, str(s.example_directory())]))"
    module, example = json.loads(_python(installed, "-c", find))
    assert Path(module).is_relative_to(installed)
    assert Path(example).is_relative_to(installed)
    assert load_template(Path(example) / "calque.yaml").name == "hackathon"
    for file in (HACKATHON / "app").rglob("*.py"):
        assert (Path(example) / file.relative_to(HACKATHON)).read_text() == file.read_text()
    broken = sorted(file.name for file in (HACKATHON / "broken").glob("*.yaml"))
    assert sorted(file.name for file in (Path(example) / "broken").glob("*.yaml")) == broken


def test_the_process_modules_of_the_stack_are_in_it(installed: Path) -> None:
    for module in ("hub", "site_agent", "brokers.postgres", "brokers.s3", "brokers.process", "brokers.filesystem"):
        assert (installed / module.replace(".", "/") / "__main__.py").is_file()
