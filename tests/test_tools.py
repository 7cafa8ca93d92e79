"""The linter and the type checker find nothing, every file parses on the oldest Python that is supported, the
documentation builds."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def clean(tool: str, *arguments: str) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"needs {tool}, which is in the test extra")
    done = subprocess.run([sys.executable, "-m", tool, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    """pyproject.toml has the rules; syntax that Python 3.10 does not know is among them."""
    clean("ruff", "check", "--no-cache", ".")


@pytest.mark.slow
def test_mypy_finds_nothing(tmp_path):
    """pyproject.toml has what each room is not clean of yet."""
    clean("mypy", "--cache-dir", str(tmp_path))


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path):
    """The site with its API reference, links and anchors; needs the docs extra."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    clean("mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site"))
    page = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert all(f'id="bench.api.{name}"' in page for name in ("plan", "run", "tune", "report", "results", "cell", "predict", "export"))
    assert 'id="bench.mixers.base.Mixer' in page and 'id="bench.matrix.Config' in page


def test_pictures_are_small_and_name_no_host():
    pictures = list((ROOT / "docs" / "pictures").iterdir())
    assert {p.suffix for p in pictures} == {".png", ".svg"}
    for p in pictures:
        assert 1000 < p.stat().st_size < 300_000, p.name
        if p.suffix == ".svg":
            assert not re.findall(r"https?://(?!www\.w3\.org/)", p.read_text(encoding="utf-8")), p.name
