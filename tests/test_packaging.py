"""The wheel holds what the code reads, and runs where there is no checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from bench.environment import code_hash

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def quiet(*command: str, cwd: Path, env: dict[str, str] | None = None, code: int = 0) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, (command, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from what git would commit, so that neither build/ nor a stale egg-info adds a file."""
    pytest.importorskip("setuptools", minversion="70.1", reason="needs setuptools 70.1, which is in the test extra")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    quiet(*pip, "-w", str(out), str(source), cwd=out)
    (found,) = out.glob("*.whl")
    return found


def files() -> list[str]:
    kept = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True)
    if kept.returncode:
        pytest.skip("needs a git checkout")
    parts = ("bench/", "experiments/", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
    return [n for n in kept.stdout.splitlines() if n.startswith(parts) and (ROOT / n).is_file()]


def test_everything_that_is_read_is_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"bench/{n}" if n.startswith("experiments/") else n for n in files() if n.startswith(("bench/", "experiments/"))}
    documents = {"bench/experiments/reported/README.md"}  # for readers of the tree
    assert wanted - inside <= documents
    assert {n.split("/")[0] for n in inside if ".dist-info/" not in n} == {"bench"}  # takes no other name of the user's


def test_the_installed_wheel_runs_in_an_empty_folder(wheel, tmp_path):
    """A new environment: the wheel in it, its dependencies those of this one (a .pth line reaches the packages, not the
    checkout that may be installed here for editing)."""
    quiet(sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv"), cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    quiet(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel), cwd=tmp_path)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    here = tmp_path / "empty"
    here.mkdir()
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}

    def bench(*arguments: str, code: int = 0) -> str:
        return quiet(str(tmp_path / "venv" / "bin" / "bench"), *arguments, cwd=here, env=env, code=code)

    where = quiet(str(python), "-c", "import bench.experiments; print(bench.__file__, bench.experiments.__file__)", cwd=here, env=env)
    assert where.count(str(tmp_path / "venv")) == 2
    hashed = quiet(str(python), "-c", "from bench.environment import code; print(code())", cwd=here, env=env)
    assert code_hash() in hashed and "'commit': None" in hashed

    assert "msmix-t1" in bench("list") and "cpsl-f3" in bench("list")
    assert "here" in bench("doctor")
    ran = bench("run", "msmix-t1", "--only", "*/lmf+none", "--seeds", "1", "--workers", "1", "--set", "train.max_epochs=1")
    assert "1 done, 0 failed" in ran
    page = here / bench("report", "msmix-t1").strip().splitlines()[-1]
    assert page.is_file() and "SYNTHETIC" in page.read_text(encoding="utf-8").upper()
    assert "finding" in bench("audit").lower()
    assert bench("new", "mixer", "swap", "--in", "mine") and "keeps the contract" in bench("check", "swap", "--plugins", "mine")
