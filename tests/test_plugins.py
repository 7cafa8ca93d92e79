"""Components from outside of the tree: the worked examples of docs/extending.md as they are printed there, packages, and
plug-ins that are broken."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import plugins, registry
from bench.cli import main
from bench.errors import BenchError
from bench.job import run
from bench.matrix import Job
from bench.store import Store
from tests.golden import cell_config

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
_BLOCK = re.compile(r"```(?:python|toml|csv)\n# ([\w/]+\.\w+)\n(.*?)```", re.S)


def examples(folder: Path) -> list[Path]:
    """Write the page's examples into a folder, each under the path on its first line."""
    made = []
    for name, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        made.append(path)
    return made


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch):
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    from bench.analysis import reported
    from bench.experiments import all_experiments, common

    def forget():
        plugins.forget()
        for cached in (all_experiments, reported._read, common.toml):
            cached.cache_clear()

    forget()
    yield
    os.environ.pop(plugins.VARIABLE, None)
    forget()


@pytest.fixture
def mine(tmp_path):
    examples(tmp_path / "mine")
    return tmp_path / "mine"


def bench(*arguments, cwd=ROOT):
    return subprocess.run([sys.executable, "-m", "bench", *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})


def test_the_page_has_every_kind_of_example(mine):
    assert {p.relative_to(mine).parts[0] for p in mine.rglob("*.*")} == {
        "mixers", "models", "hyperparameters", "datasets", "experiments", "reported", "claims"}


def test_a_mixer_takes_at_most_25_lines(mine):
    body = (mine / "mixers" / "swap.py").read_text().partition("class Params")[2]
    code = [line for line in body.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(code) <= 25


def test_components_are_found_with_their_versions_and_spaces(mine):
    plugins.use(mine)
    assert "swap" in registry.names("mixers") and "meanpool" in registry.names("models") and "reviews" in registry.names("datasets")
    assert registry.version("mixers", "swap") == 1
    from bench import spaces
    from bench.experiments.common import config

    c = config("mine", "meanpool", "mosi", "swap")
    assert c.train["lr"] == 1e-3 and c.versions["mixer"] == 1
    assert "mixer.weight" in {d.name for d in spaces.space(c).dimensions}
    assert plugins.problems() == []


@pytest.mark.parametrize("name", ["swap", "meanpool"])
def test_the_examples_keep_the_contract(name, mine, capsys):
    assert main(["check", name, "--plugins", str(mine)]) == 0
    out = capsys.readouterr().out
    assert f"{name} keeps the contract" in out and "\n- " not in out


@pytest.mark.slow
def test_the_examples_run_and_report_from_the_command_line(mine, tmp_path):
    where = ("--plugins", mine, "--results", tmp_path / "r")
    ran = bench("run", "mine-t1", *where, "--seeds", "2", "--set", "train.max_epochs=2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    page = bench("report", *where, "--out", tmp_path / "page", "--variants")
    assert page.returncode == 0, page.stdout + page.stderr
    text = (tmp_path / "page" / "index.html").read_text()
    assert "Swap on MOSI" in text and "mine-c01" in text
    listed = json.loads(bench("plan", "mine-t1", *where, "--json").stdout)
    assert listed["artefacts"][0]["artefact"] == "mine-t1"


@pytest.mark.slow
def test_a_data_set_of_ones_own_trains_on_generated_files(mine, tmp_path):
    made = bench("--plugins", mine, "data", "synth", tmp_path / "data", "--datasets", "reviews")
    assert made.returncode == 0, made.stderr
    checked = bench("data", "check", tmp_path / "data", "--plugins", mine)
    assert "reviews" in checked.stdout, checked.stdout + checked.stderr


def test_new_writes_what_works(tmp_path, capsys):
    for kind, name in (("mixer", "mymix"), ("backbone", "mynet")):
        assert main(["new", kind, name, "--in", str(tmp_path / "own")]) == 0
        assert main(["check", name, "--plugins", str(tmp_path / "own")]) == 0
    for kind, name, shown in (("experiment", "ours", "ours-t1"), ("dataset", "ourdata", "ourdata")):
        assert main(["new", kind, name, "--in", str(tmp_path / "own")]) == 0
        said = capsys.readouterr().out.splitlines()[-1]
        next_command = shlex.split(said.removeprefix("next: bench ").partition("(docs")[0])
        assert main([*next_command, "--results", str(tmp_path / "none")]) == 0
        assert shown in capsys.readouterr().out, said
    plugins.forget()
    from bench.experiments import all_experiments

    all_experiments.cache_clear()
    assert "ours-t1" in all_experiments() and "ourdata" in registry.names("datasets")
    tests = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "own" / "tests" / "test_mymix.py")],
                           cwd=ROOT, capture_output=True, text=True)
    assert tests.returncode == 0, tests.stdout


@pytest.mark.parametrize(("arguments", "line"), [
    (("new", "mixer", "msmix"), "there is a mixer 'msmix' already"), (("new", "mixer", "My Mix"), "will not do as a name"),
    (("new", "thing", "x"), "bench new takes mixer"), (("check", "nosuch"), "no backbone or mixer 'nosuch'"),
    (("--plugins", "no/such/folder", "list"), "no such folder"),
])
def test_wrong_calls_are_one_line(arguments, line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(list(arguments)) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1


BROKEN = {
    "mixers/syntax.py": "def (", "mixers/noversion.py": "x = 1", "models/tfn.py": "VERSION = 1", "experiments/raises.py": "raise RuntimeError('boom')",
    "experiments/badpaper.py": "EXPERIMENTS = (lambda: 1 / 0,)", "reported/other.csv": "a,b\n1,2\n", "claims/mine.toml": "[[claim]\n",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_plug_in_is_one_line_and_stops_nothing(broken, mine, tmp_path, capsys):
    path = mine / broken
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(BROKEN[broken])
    assert main(["plan", "mine-t1", "msmix-t1", "--plugins", str(mine), "--results", str(tmp_path)]) == 0
    from bench.analysis import claims, reported

    assert len(reported.load("msmix")) > 100 and len(reported.load()) > 2000
    claims.ledger.known("mine")
    found = [line for line in plugins.problems() if Path(broken).name in line]
    assert len(found) == 1 and "\n" not in found[0]
    assert "msmix" in registry.names("mixers") and registry.load("models", "tfn").__file__.startswith(str(ROOT))


LEAVES = """
import sys
from dataclasses import dataclass
from bench.mixers.base import Mixed, Mixer
VERSION = 1
print("hello from a plug-in")
@dataclass(frozen=True)
class Params:
    p_mix: float = 1.0
    start_epoch: int = 1
class Mix(Mixer):
    def mix(self, latents, targets, generator):
        sys.exit("enough")
"""


def test_a_component_that_exits_fails_and_ends_nothing_else(tmp_path, capsys):
    folder = tmp_path / "leaving"
    (folder / "mixers").mkdir(parents=True)
    (folder / "mixers" / "leaves.py").write_text(LEAVES)
    (folder / "mixers" / "gone.py").write_text("VERSION = 1\nraise SystemExit(0)")
    assert main(["check", "leaves", "--plugins", str(folder)]) == 1
    said = capsys.readouterr()
    assert "shapes of the mixture: SystemExit: enough" in said.out and "a capturable step" in said.out
    assert "hello" in said.err and "hello" not in said.out, "what others read holds nothing of a plug-in's prints"
    assert main(["check", "gone", "--plugins", str(folder)]) != 0
    job, store = Job(cell_config("lmf", "none").with_(mixer="leaves", mixer_params={}), 1111), Store(tmp_path / "results")
    with pytest.raises(BenchError, match="SystemExit: enough"):
        run(job, store)
    assert store.status(job) == "failed"


def test_a_mixer_that_breaks_the_contract_is_told_why(tmp_path, capsys):
    folder = tmp_path / "bad"
    (folder / "mixers").mkdir(parents=True)
    (folder / "mixers" / "badmix.py").write_text('''
from dataclasses import dataclass
import torch
from bench.mixers.base import Mixed, Mixer
VERSION = 1
@dataclass(frozen=True)
class Params:
    p_mix: float = 1.0
    start_epoch: int = 1
class Mix(Mixer):
    def mix(self, latents, targets, generator):
        order = torch.randperm(len(targets))
        if targets.mean().item() > 0:
            order = order.flip(0)
        return Mixed({m: x[order].detach() for m, x in latents.items()}, 2 * targets[order])
''')
    assert main(["check", "badmix", "--plugins", str(folder)]) == 1
    out = capsys.readouterr().out
    for line in ("a mixed label leaves the range", "it draws from torch's global generator", "no gradient reaches latent 'text'", "a step reads the host"):
        assert line in out, out


def test_recurrent_layers_that_drop_out_by_themselves_are_found(monkeypatch):
    """Inside cuDNN such dropout draws from one state of the whole process: another job's, and not of any seed."""
    from bench import contract
    from bench.models import ef_lstm

    assert contract._captured(contract.cell("ef_lstm")) == ""
    real = ef_lstm.Model.__init__

    def with_one(self, params, inputs):
        real(self, params, inputs)
        self.other = torch.nn.GRU(4, 4, 2, dropout=0.1)

    monkeypatch.setattr(ef_lstm.Model, "__init__", with_one)
    assert contract._captured(contract.cell("ef_lstm")).startswith("'other' drops out between its layers by itself")


@pytest.mark.slow
def test_an_installed_package_registers_its_folder(mine, tmp_path):
    """A package with an entry point, on the path as pip would put it there."""
    site = tmp_path / "site"
    package = site / "my_package"
    examples(package)
    (package / "__init__.py").write_text("")
    info = site / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bench.plugins]\nmine = my_package\n\n[bench.mixers]\nsolo = my_package.mixers.swap\n")
    code = "from bench import registry; from bench.experiments import all_experiments; print('swap' in registry.names('mixers'), 'solo' in registry.names('mixers'), 'mine-t1' in all_experiments())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"})
    assert done.stdout.split() == ["True", "True", "True"], done.stderr


def test_unknown_names_have_a_hint():
    with pytest.raises(BenchError, match="did you mean 'msmix'"):
        registry.load("mixers", "msmxi")
