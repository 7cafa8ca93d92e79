"""Every command that a document prints is one: parsed by the real parser, and run where it needs no data of a user's, no
GPU, no cluster and no minutes."""

import os
import re
import shlex
from pathlib import Path

import pytest

from bench import cli
from bench.cli import main
from bench.errors import BenchError
from bench.experiments import all_experiments
from bench.terminal.arguments import parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN_ALL = re.compile(r"^\s*(?:\$ )?(\./run_all\.sh\b.*)$")
BENCH = re.compile(r"^\s*(?:\$ )?(?:\.venv/bin/)?(bench [a-z]+\b.*)$")
STANDS_FOR = {  # what a page writes for something of the reader's own
    "ARTEFACT": "msmix-t1", "JOB": "0123456789ab-s1111", "NAME": "swap", "HOST:8786": "node:8786",
}


def blocks(text: str) -> list[str]:
    """Lines of code blocks, fenced (shell or unmarked) and indented, continued lines joined."""
    found, fence, language = [], False, ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fence, language = not fence, line.strip("` ") if not fence else ""
        elif fence and language in ("", "bash", "sh", "console", "shell") or not fence and line.startswith("    "):
            found.append(line)
    return re.sub(r"\\\n\s*", " ", "\n".join(found)).splitlines()


def commands(page: Path) -> list[str]:
    """The bench commands of a page, without those of a synopsis ([ARTEFACT...], KIND, one | another, several verbs)."""
    text = page.read_text(encoding="utf-8")
    printed = [m[1] for line in blocks(text) if (m := BENCH.match(line))]
    printed += [f"bench run {m[1].removeprefix('./run_all.sh')}" for line in blocks(text) if (m := RUN_ALL.match(line)) and " test" not in m[1]]
    printed += [m for m in re.findall(r"`(bench [a-z]+[^`]*)`", text)]
    printed += [f"bench run {m}" for m in re.findall(r"`\./run_all\.sh( [^`]*)?`", text) if " test" not in m]
    plain = [re.sub(r"\s+#.*$", "", re.sub(r"^(bench \S+(?: \S+)*?)\s{2,}[^-\s].*$", r"\1", line)) for line in printed]
    return [c.strip() for c in plain if not re.search(r"[\[\]|·…]|\.\.\.|\bKIND\b|VERB", c)]


ALL = sorted({(page.name, c) for page in PAGES for c in commands(page)})
VERBS_THAT_RUN = {"list", "plan", "audit", "doctor"}


def words(command: str) -> list[str]:
    return [STANDS_FOR.get(w, w) for w in shlex.split(command)[1:]]


def test_there_are_commands():
    assert len(ALL) > 25 and {c.split()[1] for _, c in ALL} >= {"run", "report", "data", "new", "check", "list", "doctor"}


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{p}: {c}" for p, c in ALL])
def test_the_parser_takes_it(page, command, capsys):
    given = words(command)
    if len(given) == 1 and given[0] in ("new", "check", "show", "merge", "predict", "export", "data"):
        return  # a verb that is spoken of by its name
    try:
        parser().parse_args(cli._plugins_first(given))
    except (SystemExit, BenchError) as e:
        if getattr(e, "code", 1) == 0:
            return  # --help, --version
        said = capsys.readouterr().err
        spoken_of = re.search(r"required", said) and not any(w.isupper() and len(w) > 1 for w in given)
        assert spoken_of, f"{page}: {command}: {said or e}"


def test_the_commands_of_experiments_are_parsed():
    for e in all_experiments().values():
        for command in re.findall(r"Command: (bench .*)", e.doc):
            assert parser().parse_args(shlex.split(command)[1:]).artefacts == [e.id]


@pytest.mark.slow
def test_those_that_need_nothing_run(tmp_path, monkeypatch, capsys):
    """In an empty folder, in the order of the pages; runs are planned (--dry-run), reports need something to show."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BENCH_PLUGINS", raising=False)
    theirs = re.compile(r"--data\b|--executor|--scheduler|--gpus|--dataset-from|--cluster-config|--suite (?:paper|real|tuned)|--plugins|results/reference")
    ran = set()
    for page, command in ALL:
        given = words(command)
        if theirs.search(command) or given[0] not in {*VERBS_THAT_RUN, "run"}:
            continue
        extra = ["--dry-run"] if given[0] == "run" else []
        assert main([*given, *extra]) == 0, (page, command, capsys.readouterr().err)
        ran.add(given[0])
    assert ran >= {"run", "list"}
    assert main(["new", "mixer", "swap", "--in", "mine"]) == 0
    assert main(["data", "synth", "DIR"]) == 0 and main(["data", "check", "DIR"]) == 0
    os.chdir(ROOT)
    assert main(["report", "--results", "results/reference", "--out", str(tmp_path / "page")]) == 0
