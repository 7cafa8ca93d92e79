"""What the command line offers beside running: names and selections, lists, progress, the last report, completion, curves."""

import shutil
import subprocess
import sys
import time
from dataclasses import fields as dataclass_fields
from pathlib import Path

import pytest

from bench import registry, sources
from bench.cli import main
from bench.errors import BenchError
from bench.events import Events
from bench.experiments import select
from bench.launch.sessions import Held
from bench.launch.worker import Outcome
from bench.matrix import Config, Job
from bench.plan import make_plan
from bench.selectors import Only
from bench.store import Store
from bench.suites import suite
from bench.terminal import progress
from bench.terminal.arguments import parser
from bench.terminal.progress import Progress
from bench.train.protocol import Protocol

# --- --only ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("only", "cells"), [
    ("LMF+none", {"lmf+none"}),
    ("tfn+none,*/LMF+none", {"tfn+none", "lmf+none"}),
    (["tfn,lmf", "ms-mix"], {"tfn+msmix", "lmf+msmix"}),
    (["MulT", "MOSI", "advmixup,Plain"], {"mult+advmixup", "mult+none"}),
    ("synthetic-mosi/glomo+powmix", {"glomo+powmix"}),
])  # fmt: skip
def test_jobs_are_meant_by_names_of_whatever_case(tmp_path, only, cells):
    plan = make_plan(select(["msmix-t1"]), suite("quick"), Store(tmp_path), seeds=1, only=only)
    assert {f"{j.config.backbone}+{j.config.mixer}" for j in plan.jobs} == cells and not plan.notes


def test_a_job_is_meant_by_its_id_and_a_part_that_means_nothing_is_named(tmp_path):
    store = Store(tmp_path)
    job = make_plan(select(["msmix-t1"]), suite("quick"), store, seeds=2).jobs[3]
    assert make_plan(select(["msmix-t1"]), suite("quick"), store, seeds=2, only=job.id.upper()).jobs == [job]
    plan = make_plan(select(["msmix-t1"]), suite("quick"), store, seeds=1, only="lmf+none,mizza")
    assert len(plan.jobs) == 1 and plan.notes == ["--only: 'mizza' matches nothing; did you mean 'misa'?"]
    with pytest.raises(BenchError, match="no job matches --only tnf; --only: 'tnf' matches nothing; did you mean 'tfn'?"):
        make_plan(select(["msmix-t1"]), suite("quick"), store, seeds=1, only="tnf")
    with pytest.raises(BenchError, match="no job matches --only tfn --only lmf$"):  # both are there, never together
        make_plan(select(["msmix-t1"]), suite("quick"), store, seeds=1, only=["tfn", "lmf"])


def test_nothing_given_means_every_job_and_an_empty_text_none():
    assert not Only(None) and Only([]).job(Job(Config("mosi", "unaligned", "tfn"), 1111))
    for nothing in ("", [" , "], ["tfn", ""]):
        with pytest.raises(BenchError, match="names nothing; leave it out for every job"):
            Only(nothing)


# --- lists -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("flag", "names"), [
    ("--backbones", registry.names("models")), ("--mixers", registry.names("mixers")), ("--datasets", registry.names("datasets")),
    ("--metrics", ("has0_acc2", "corr", "accuracy")),
])  # fmt: skip
def test_what_can_be_named_is_listed(capsys, flag, names):
    assert main(["list", flag]) == 0
    first = {w for line in capsys.readouterr().out.splitlines() for w in line.split()[:2]}
    assert set(names) <= first


def test_settings_of_every_component_are_those_of_its_class_with_what_is_run_and_its_source(capsys):
    for kind in ("models", "mixers"):
        for name in registry.names(kind):
            listed = [f.name for f in sources.fields(registry.source(kind, name))]
            assert listed == [f.name for f in dataclass_fields(registry.load(kind, name).Params)], name
    assert registry.parameters("models", "cmib") == registry.parameters("models", "emib") != {}  # a class of another file
    assert main(["list", "--params", "lmf"]) == 0
    out = capsys.readouterr().out
    assert "backbone.rank " in out and "on mosi (unaligned):" in out and "train.lr=0.001" in out and "source: MMSA" in out
    assert main(["list", "--params", "msmix"]) == 0 and "in msmix, on MOSI: mixer.delta=0.2" in capsys.readouterr().out
    assert main(["list", "--params", "lmff"]) == 2 and "did you mean 'lmf'?" in capsys.readouterr().err


def test_the_help_names_every_key_of_set():
    (verbs,) = (a for a in parser()._actions if hasattr(a, "choices") and a.choices and "run" in a.choices)
    text = verbs.choices["run"].format_help()
    assert all(f"train.{f.name}" in text for f in dataclass_fields(Protocol)) and "data.modalities" in text


def test_a_narrow_terminal_keeps_the_titles(monkeypatch, capsys):
    from rich.console import Console

    from bench.terminal import plans

    monkeypatch.setattr(plans, "console", lambda: Console(width=64, highlight=False, markup=False))
    assert main(["list", "msmix-t1"]) == 0
    assert "Results of mixup methods on MOSI" in capsys.readouterr().out


# --- progress --------------------------------------------------------------------------------------------------------

JOBS = [Job(Config("synthetic-mosi", "unaligned", "lmf"), 1111 + k) for k in range(3)]


def in_training(job, line):
    return Held(job.id, "synthetic-mosi/lmf+none", "here", line)


def test_the_first_job_is_told_at_once_and_a_long_silence_is_broken(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(progress, "LOOK", 0.02)
    monkeypatch.setattr(progress, "QUIET", 0.3)
    monkeypatch.setattr(progress, "held", lambda store: [in_training(JOBS[0], "epoch 7 train 1.0321")])
    with Progress(JOBS, 1, {JOBS[0].config.id: 60.0}, Store(tmp_path)) as p:
        end = time.monotonic() + 10
        while "epoch 7" not in (out := capsys.readouterr().out) and time.monotonic() < end:
            first = out or locals().get("first", "")
            time.sleep(0.1)
        assert first.startswith("in training: synthetic-mosi/lmf+none seed 1111; about ")
        assert "[0/3] synthetic-mosi/lmf+none seed 1111 epoch 7 train 1.0321; about " in out
        p(Outcome(JOBS[0], "done", seconds=30.0))
        assert "[1/3] done synthetic-mosi lmf+none seed 1111 in 30s; about 1m00s left" in capsys.readouterr().out


def test_jobs_of_one_cell_with_other_settings_are_told_apart(capsys):
    base = Config("synthetic-mosi", "unaligned", "lmf")
    narrow = base.with_(backbone_params={"rank": 2}, features="aligned")
    alone = Config("synthetic-mosi", "unaligned", "tfn")
    p = Progress([Job(c, 1111) for c in (base, narrow, alone)], 1, {})
    for c in (base, narrow, alone):
        p(Outcome(Job(c, 1111), "done", seconds=30.0))
    names = [line.partition(" in 30s")[0].partition("done synthetic-mosi ")[2] for line in capsys.readouterr().out.splitlines()]
    assert names[1:] == ["lmf+none (features=aligned, rank=2) seed 1111", "tfn+none seed 1111"]
    assert names[0].startswith("lmf+none (features=unaligned, rank=") and "rank=2" not in names[0]
    p.training = [Held(Job(narrow, 1112).id, "synthetic-mosi/lmf+none", "here", "")]
    assert p._name(p.training[0]) == "synthetic-mosi/lmf+none (features=aligned, rank=2) seed 1112"


def test_the_time_left_runs_down_between_jobs_and_never_to_nothing(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    p = Progress(JOBS, 1, {JOBS[0].config.id: 60.0})
    assert p.eta() == pytest.approx(180)
    now[0] += 30
    assert p.eta() == pytest.approx(150)
    now[0] += 900
    assert p.eta() == pytest.approx(18)


def test_on_a_terminal_jobs_and_epochs_stand_under_the_bar_within_its_width():
    from rich.console import Console

    p = Progress(JOBS, 2, {JOBS[0].config.id: 60.0})
    show = lambda: "".join(s.text for s in Console(width=50, force_terminal=True).render(p.render()))
    assert "0/3 jobs" in show() and "starting 2 workers" in show()
    p.training = [in_training(JOBS[0], "epoch 7 train 1.0321 valid 1.1020 avg 0.6412"), in_training(JOBS[1], "")]
    lines = show().splitlines()
    assert any(line.strip().startswith("synthetic-mosi/lmf+none seed 1111  epoch 7") for line in lines)
    assert any("seed 1112  reading" in line for line in lines) and max(map(len, lines)) <= 50


# --- the last report, curves, completion ----------------------------------------------------------------------------

def test_a_run_says_what_happened_renders_and_writes_curves(tmp_path, monkeypatch, capsys):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard, which is optional")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("BROWSER", raising=False)
    command = ["run", "msmix-t1", "--only", "LMF+plain", "--seeds", "1", "--workers", "1", "--gpus", "none", "--tensorboard"]
    assert main([*command, "--report"]) == 0
    out = capsys.readouterr().out
    assert "1 done, 0 failed, 0 were done before; took " in out
    assert "curves: tensorboard --logdir results/tensorboard" in out
    assert f"report: {Path('reports/quick/index.html')} (`bench open` shows it)" in out
    assert main(["open"]) == 0 and str(tmp_path / "reports/quick/index.html") in capsys.readouterr().out

    store = Store("results")
    (job,) = store.scan()
    found = accumulator.EventAccumulator(str(Path("results/tensorboard") / job.folder))
    found.Reload()
    history, metrics = store.history(job), store.metrics(job)
    assert [e.value for e in found.Scalars("valid/mae")] == pytest.approx(history.valid_mae.tolist())
    assert [e.step for e in found.Scalars("train/task")] == history.epoch.tolist()
    assert found.Scalars("test/mae")[0].value == pytest.approx(metrics["test"]["mae"])
    assert found.Scalars("test/mae")[0].step == metrics["best_epoch"]
    assert not Events(Path("results/tensorboard")).write(store, job)  # once per result

    assert main(command) == 0
    out = capsys.readouterr().out
    assert "0 done, 0 failed, 1 were done before" in out
    assert "next: bench report --suite quick renders tables and figures" in out


def test_without_a_library_for_curves_there_is_a_line(monkeypatch, tmp_path, capsys):
    for name in ("torch.utils.tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["run", "msmix-t1", "--tensorboard", "--results", str(tmp_path)]) == 2
    assert "--tensorboard needs tensorboard or tensorboardX, and neither is installed: pip install tensorboard" in capsys.readouterr().err


def test_a_report_is_opened_by_name_and_where_there_is_none_that_is_said(tmp_path, monkeypatch, capsys):
    from bench.terminal import opening

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "recall_report", lambda: None)
    assert main(["open"]) == 2 and "no report was made yet; `bench report` makes one" in capsys.readouterr().err
    page = tmp_path / "reports/real/index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>", encoding="utf-8")
    monkeypatch.setenv("DISPLAY", ":7")
    opened = []
    monkeypatch.setattr(opening.webbrowser, "open", lambda url: opened.append(url) or True)
    for named in ([], ["real"], [str(page)], [str(page.parent)]):
        assert main(["open", *named]) == 0 and capsys.readouterr().out == f"{page}\n"
    assert opened == [page.as_uri()] * 4
    assert main(["open", "other"]) == 2 and "no report other" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "expected"), [
    ("bench ru", "run"), ("bench run --tensorb", "--tensorboard"), ("bench run --suite qu", "quick"),
    ("bench plan msmix-t4", "msmix-t4"), ("bench run --only saml", "samlml"), ("bench data sy", "synth"),
    ("bench list --params powm", "powmix"), ("bench run --executor sl", "slurm"),
])  # fmt: skip
def test_bash_completes_verbs_flags_choices_and_names(script, words, expected):
    line = f'source {script}; COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; _bench; echo "${{COMPREPLY[*]}}"'
    assert subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.split() == [expected]


def test_names_with_spaces_are_completed_whole(script, tmp_path):
    (tmp_path / "my results").mkdir()
    for words in ("bench run --results my", "bench data check my"):
        line = f'source {script}; COMP_WORDS=({words}); COMP_CWORD=3; _bench; printf "<%s>" "${{COMPREPLY[@]}}"'
        assert subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True).stdout == "<my results>"


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The completion script of bash, in a file."""
    if not shutil.which("bash"):
        pytest.skip("needs bash, which is not here")
    from bench.terminal.completion import script as made

    path = tmp_path_factory.mktemp("completion") / "bench.bash"
    path.write_text(made("bash", parser()), encoding="utf-8")
    assert "compinit" in made("zsh", parser()) and "bashcompinit" in made("zsh", parser())
    return path
