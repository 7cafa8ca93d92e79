"""The documentation is true where a machine can tell: links, verbs, flags, generated pages, examples."""

import argparse
import re
from pathlib import Path

import pytest

from bench import sources
from bench.experiments import method_pages
from bench.terminal.arguments import parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_OTHERS = {  # flags of programs that are not ours, or of the test command
    "--nthreads", "--resources", "--port", "--exclude", "--gres", "--lifetime", "--help", "--use", "--strict",  # flags of other programs and of the references
}


def parsers():
    """Every verb's parser, those of actions too."""
    def below(parser):
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for one in action.choices.values():
                    yield from below(one)

    return list(below(parser()))


def verbs():
    (action,) = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return set(action.choices)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_verb_and_flag_that_is_named_is_there(page):
    text = page.read_text(encoding="utf-8")
    known = {o for p in parsers() for a in p._actions for o in a.option_strings} | _OTHERS
    for verb in re.findall(r"(?:^|`|\n|    )bench (?!VERB)([a-z]+)\b", text):
        assert verb in verbs(), f"{page.name}: bench {verb}"
    for flag in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text):
        assert flag in known, f"{page.name}: {flag}"


def test_the_readme_lists_every_verb():
    block = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The command line")[2].partition("```\n")[2].partition("```")[0]
    named = set(re.findall(r"[a-z]+", block))
    assert verbs() <= named, verbs() - named


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_lists_stand_apart(page):
    """The site's Markdown takes an item that follows a line of text for more of that text."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for block in re.split(r"\n\s*\n", text):
        lines = block.splitlines()
        assert re.match(r"- |\d+\. |\s", block) or not any(re.match(r"- |1\. ", x) for x in lines), f"{page.name}: {block[:80]}"


def test_equations_of_method_pages_are_the_docstrings():
    """What is laid out in columns or indented is kept letter for letter: no link and no code mark inside."""
    for name, text in method_pages.pages().items():
        kind, _, component = name.removesuffix(".md").partition("-")
        source = (ROOT / "bench" / kind / f"{component}.py").read_text(encoding="utf-8") if component else ""
        for block in re.findall(r"```text\n(.*?)\n```", text, flags=re.S):
            assert all(line.strip() in source for line in block.splitlines()), name
        assert not re.search(r"^    \S", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M), name


def test_methods_have_whole_titles():
    for line in re.findall(r"^- \[`.*", method_pages.index(), flags=re.M):
        assert line.endswith("."), line

def test_every_setting_has_a_meaning():
    """A row of a method page's settings says what the setting does, not only what else it may be or what of."""
    for name, text in method_pages.pages().items():
        rows = re.findall(r"^\| `(?:backbone|mixer)\.\w+` \|.*", text, flags=re.M)
        bare = [row for row in rows if re.search(r"\|\s*((or|of|in|between|behind|before|after|inside|while) [^|]*)?\|$", row)]
        assert not bare, f"{name}: {bare[0]}"


def test_a_setting_says_what_it_is_the_width_or_the_layers_of():
    """A model's only `layers`, `heads` or `dropout` need no more; one of several, and any width, does."""
    for name, text in method_pages.pages().items():
        said = re.findall(r"^\| `\w+\.(\w+)` \|.*\| ([^|]*) \|$", text, flags=re.M)
        bare = [s for s, meaning in said if meaning in ("width", "layers", "attention heads", "dropout rate")]
        assert not [s for s in bare if "_" in s.removesuffix("_heads" * (s == "attention_heads")) or s == "d"], f"{name}: {bare}: of what?"


def test_comments_that_only_narrow_a_meaning_follow_it():
    found = {f.name: f for f in sources.fields(ROOT / "bench" / "models" / "hkt.py")}
    assert found["dropout"].comment == "dropout rate of the cross layers and the head"
    assert found["positions"].default == "5000"  # a constant of another file


def test_method_pages_are_those_of_the_code():
    """`python -m experiments.method_pages` writes them."""
    made = method_pages.pages()
    there = {p.name: p.read_text(encoding="utf-8") for p in method_pages.FOLDER.glob("*.md")}
    assert set(made) == set(there)
    stale = [name for name, text in made.items() if there[name] != text]
    assert not stale, f"run python -m experiments.method_pages: {stale[:5]}"
