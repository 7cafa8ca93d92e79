"""The command line as a user meets it: one clear line for every wrong call, exit codes, plans that say what they do."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.data.tools import write_synthetic
from bench.errors import BenchError
from bench.experiments import select
from bench.manifest import read_manifest, write_manifest
from bench.plan import make_plan
from bench.store import Store
from bench.suites import suite

ROOT = Path(__file__).parents[1]


def run(*arguments, capsys):
    code = main([str(a) for a in arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize(("arguments", "line"), [
    (("plan", "--suite", "nope"), "unknown suite 'nope'; known: quick, real, tuned, paper"),
    (("plan", "msmix-t9"), "unknown artefact 'msmix-t9'"),
    (("plan", "--data", "no/such/folder"), "no such folder"),
    (("plan", "msmix-t1", "--set", "lr=3"), "--set cannot change 'lr'"),
    (("plan", "msmix-t1", "--set", "train.lr"), "--set takes key=value"),
    (("plan", "msmix-t1", "--set", "train.lr=1e-3", "--set", "train.lr=1e-4"), "--set train.lr is given twice, as 0.001 and 0.0001"),
    (("plan", "msmix-t1", "--set", "corruption.rate=0.3"), "a corruption has a kind and a rate: corruption.kind=missing"),
    (("plan", "--only", " , "), "--only ' , ' names nothing"),
    (("doctor", "--data", "no/such/folder"), "--data no/such/folder: no such folder"),
    (("tune", "msmix-t1", "--objective", "acc3"), "--objective 'acc3' is no metric of these cells"),
    (("new", "mixer", "class"), "'class' will not do as a name"),
    (("run", "msmix-t1", "--gpus", "a"), "--gpus takes numbers"),
    (("run", "msmix-t1", "--only", "nothing-matches-this"), "nothing to run: no job matches"),
    (("report", "--results", "no/such/results"), "no results in no/such/results"),
    (("report", "--compare", "no/such/a", "no/such/b"), "no such folder"),
    (("data", "check", "no/such/folder"), "no such folder"),
    (("data", "synth", "OUT", "--datasets", "nope"), "unknown dataset 'nope'"),
    (("run", "msmix-t1", "--suite", "real", "--only", "mosi/lmf+none"), "no unaligned features of mosi; name their folder with --data"),
])
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, line, capsys, tmp_path):
    arguments = [str(tmp_path / "out") if a == "OUT" else a for a in arguments]
    if arguments[0] == "run":
        arguments += ["--results", str(tmp_path / "results")]
    code, _, err = run(*arguments, capsys=capsys)
    assert code == 2 and err.startswith("bench: ") and line in err
    assert err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(("arguments", "line"), [
    (("pla",), "VERB: there is no 'pla'; did you mean 'plan'? (`bench --help`)"),
    (("report", "--watch", "-1"), "--watch: must be from 0.1 to 86400 seconds"), (("report", "--watch", "nan"), "--watch: must be from 0.1"),
    (("status", "--watch", "1e400"), "--watch: must be from 0.1 to 86400 seconds"), (("status", "--watch", "soon"), "--watch: takes seconds, got 'soon'"),
    (("run", "--seeds", "0"), "--seeds: must be from 1 to 10000 (`bench run --help`)"),
    (("report", "--split", "train"), "--split: there is no 'train'; known: test, valid (`bench report --help`)"),
    (("plan", "--only", ""), "--only: its value is empty; is a variable not set?"),
    (("run", "--results", ""), "--results: its value is empty"),
    (("plan", "--data="), "--data: its value is empty"),
    (("plan", "--plugins"), "--plugins: its value is empty"),
    (("plan", ""), "ARTEFACT: its value is empty"),
    (("data", "check", " "), "dir: its value is empty"),
    (("show", ""), "JOB: its value is empty"),
])
def test_a_command_that_cannot_be_read_is_one_line_and_exit_code_2(arguments, line, capsys):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith(f"bench: {line}") and err.count("\n") == 1


def test_names_are_found_whatever_their_case(capsys, tmp_path):
    for asked in (("plan", "MSMIX-T1", "--suite", "Quick", "--results", tmp_path / "r"), ("list", "--params", "LMF")):
        assert run(*asked, capsys=capsys)[0] == 0, asked
    with pytest.raises(BenchError, match="unknown artefact 'msmix-t0'"):
        select(["MSMIX-T0"])


def test_gpus_that_are_not_there(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    code, _, err = run("run", "msmix-t1", "--only", "synthetic-mosi/lmf+none", "--gpus", "0", "--results", tmp_path, capsys=capsys)
    assert code == 2 and "this machine has 0 usable GPUs; --gpus none runs on the CPU" in err


def broken(folder, change):
    write_synthetic(folder, ["mosi"], False, ["msena"])
    for path in folder.rglob("*.pkl"):
        content = pickle.loads(path.read_bytes())
        content.pop("synthetic", None)
        change(content)
        path.write_bytes(pickle.dumps(content))


def set_text(value):
    def change(content):
        text = np.array(content["train"]["text"])
        text[3, 0, 0] = value
        content["train"]["text"] = text
    return change


@pytest.mark.parametrize(("change", "line"), [
    (lambda c: c.pop("valid"), "valid"),
    (lambda c: c["train"].pop("audio"), "audio"),
    (lambda c: c["train"].update(audio=np.zeros((3, 4))), "audio"),
    (lambda c: c["test"].update(regression_labels=c["test"]["regression_labels"][:-1]), "regression_labels"),
    (set_text(np.nan), "text"),
    (set_text(np.inf), "text"),
    (lambda c: c["train"].update(regression_labels=np.array(c["train"]["regression_labels"]) * 9), "label"),
])
def test_unusable_files_are_one_line_in_data_check(change, line, capsys, tmp_path):
    broken(tmp_path, change)
    code, out, err = run("data", "check", tmp_path, capsys=capsys)
    assert code == 2 and line in out + err and "Traceback" not in out + err


def test_truncated_and_hostile_pickles(capsys, tmp_path):
    write_synthetic(tmp_path, ["mosi"], False, ["msena"])
    files = sorted(tmp_path.rglob("*.pkl"))
    files[0].write_bytes(files[0].read_bytes()[:5000])
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {mark}",)

    files[1].write_bytes(pickle.dumps({"train": Hostile()}))
    code, out, _ = run("data", "check", tmp_path, capsys=capsys)
    flat = " ".join(out.split())
    assert code == 2 and not mark.exists() and "system" in flat and "truncated" in flat


def test_list_and_plan(capsys, tmp_path):
    code, out, _ = run("list", "--results", tmp_path, capsys=capsys)
    assert code == 0 and "msmix-t1" in out and "msmix-t4" in out
    code, out, _ = run("plan", "msmix-t4", "msmix-t1", "--suite", "paper", "--json", "--results", tmp_path, capsys=capsys)
    plan = json.loads(out)
    assert code == 0 and plan["jobs"]["before_deduplication"] - plan["jobs"]["total"] == 10
    assert [a["needed"] for a in plan["artefacts"]] == [210, 40]


def test_dry_run_trains_nothing(capsys, tmp_path):
    code, out, _ = run("run", "msmix-t1", "--only", "synthetic-mosi/lmf+*", "--seeds", "1", "--dry-run", "--results", tmp_path, capsys=capsys)
    assert code == 0 and out.count("would run synthetic-mosi/lmf+") == 7 and not list(tmp_path.rglob("*.json"))


def test_plan_says_how_it_adapts_to_custom_files(capsys, tmp_path, shared):
    subprocess.run([sys.executable, str(shared / "data" / "make_msena.py"), str(tmp_path)], check=True, capture_output=True)
    code, out, _ = run("plan", "msmix-t1", "--suite", "real", "--data", tmp_path, capsys=capsys)
    assert code == 0 and "lmf on mosi: text_state=valid" in out and "mult on mosi: aligned features" in out


def test_run_fails_report_is_built_and_exit_code_is_1(capsys, tmp_path):
    results = tmp_path / "results"
    common = ("--only", "synthetic-mosi/lmf+none", "--seeds", "1", "--results", results)
    code, out, _ = run("run", "msmix-t1", *common, "--set", "train.max_epochs=1", "--set", "train.lr=1e30", "--workers", "1", capsys=capsys)
    assert code == 1 and "training diverged in epoch 1" in out and "1 failed" in out
    code, out, _ = run("report", "--results", results, "--out", tmp_path / "report", capsys=capsys)
    page = Path(out.strip().splitlines()[-1])
    assert code == 0 and page.name == "index.html" and "training diverged" in page.read_text()
    code, out, _ = run("run", "msmix-t1", *common, "--set", "train.max_epochs=1", "--set", "train.lr=1e30", "--workers", "1", capsys=capsys)
    assert code == 1 and "none to run" in out, "a failed job is not run again unless asked"


def test_settings_change_the_selected_cells_and_the_record_keeps_the_others(tmp_path):
    """Two runs of parts of one table, each with settings of its own, are one table in the report, beside the defaults."""
    store, table = Store(tmp_path), select(["msmix-t1"])[0]

    def record(only, *settings):
        plan = make_plan([table], suite("quick"), store, only=only, settings=settings)
        write_manifest(plan, store, None)
        return plan

    first = record("synthetic-mosi/lmf+*", "train.lr=0.5")
    assert {c.train.get("lr") == 0.5 for c in first.experiments[0].configs() if c.backbone == "lmf"} == {True}
    assert {c.train.get("lr") == 0.5 for c in first.experiments[0].configs() if c.backbone != "lmf"} == {False}
    record("synthetic-mosi/tfn+none", "train.lr=0.25")
    rows = read_manifest([table], store, suite("quick"))[0][0].rows
    rates = {(r.backbone, r.method, r.departs): r.cells["MOSI"].train.get("lr") for r in rows}
    assert rates["LMF", "plain", "lr=0.5"] == rates["LMF", "MS-Mix", "lr=0.5"] == 0.5 and rates["TFN", "plain", "lr=0.25"] == 0.25
    assert len(rates) == len(table.rows) + sum(r.backbone == "LMF" for r in table.rows) + 1 and not {0.5, 0.25} & {v for (_, _, departs), v in rates.items() if not departs}


def test_doctor_says_what_will_run(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("BENCH_ENCODERS", str(tmp_path))
    code, out, _ = run("doctor", capsys=capsys)
    assert code == 0 and "bert-base-uncased" in out and "jobs can run here" in out and "--data" in out


@pytest.fixture
def clone(tmp_path):
    """A folder with run_all.sh and programs that only say how they were called."""
    if not shutil.which("bash"):
        pytest.skip("no bash")
    (tmp_path / "clone").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "run_all.sh", tmp_path / "clone")
    (tmp_path / "bin" / "echoing").write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    (tmp_path / "bin" / "python3").write_text('#!/bin/sh\n[ "$1" = "-m" ] && mkdir .venv\n[ "$FAILS" != "$1" ]\n')
    for program in (tmp_path / "bin").iterdir():
        program.chmod(0o755)

    def call(*arguments, **env):
        env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "BENCH_PYTHON": "", **env}
        return subprocess.run(["bash", str(tmp_path / "clone" / "run_all.sh"), *arguments], cwd=tmp_path, env=env, capture_output=True, text=True)

    return call


def test_run_all_takes_folders_from_where_it_was_called(clone, tmp_path):
    (tmp_path / "my data [1]").mkdir()
    said = clone("--data", "my data [1]", "--only=tfn,lmf", f"--plugins={tmp_path}", BENCH_PYTHON="echoing").stdout
    assert said == f"<-m><bench><run><--suite><real><--report><--data><{tmp_path}/my data [1]><--only=tfn,lmf><--plugins={tmp_path}>"
    assert clone("--data=my data [1]", "--dry-run", BENCH_PYTHON="echoing").stdout == f"<-m><bench><run><--data={tmp_path}/my data [1]><--dry-run>"
    assert "<--data><no such>" in clone("--data", "no such", BENCH_PYTHON="echoing").stdout
    assert clone(BENCH_PYTHON="echoing").stdout.startswith("<-m><bench><run><--suite><quick><--report>next: ")


@pytest.mark.parametrize(("fails", "line"), [("-c", "needs Python 3.10 or newer as python3"), ("-m", "python3 cannot make .venv")])
def test_run_all_that_cannot_be_installed_ends_with_2_and_is_tried_again(clone, tmp_path, fails, line):
    done = clone(FAILS=fails)
    assert done.returncode == 2 and line in done.stderr and not (tmp_path / "clone" / ".venv").exists()


def test_second_start_of_run_all_is_fast():
    if not shutil.which("bash"):
        pytest.skip("no bash")
    environment = {**os.environ, "BENCH_PYTHON": sys.executable}
    began = time.perf_counter()
    done = subprocess.run(["bash", "run_all.sh", "--dry-run", "--only", "synthetic-mosi/lmf+none"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "would run" in done.stdout or "none to run" in done.stdout
    assert time.perf_counter() - began < 20
