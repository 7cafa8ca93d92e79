"""`bench completion bash|zsh`: a script that completes verbs, flags, choices and names, made from the parser itself."""

import argparse
from collections.abc import Iterator
from typing import Any

from bench import registry

_NAMED = {"--only", "--params"}  # flags after which components are completed
_FOLDERS = {"--data", "--results", "--out", "--plugins", "--dataset-from", "--compare", "--cluster-config", "--html", "--in"}


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The text to evaluate, or to keep in a file that the shell reads."""
    from bench.experiments import all_experiments

    verbs = dict(_verbs(parser))
    names = [*registry.names("models"), *registry.names("mixers"), *registry.names("datasets")]
    cases, choices = [], []
    for verb, (flags, of_flags, rest) in verbs.items():
        words = [*flags, *(all_experiments() if rest == "artefacts" else rest)]
        cases.append(f"        {verb}) words=\"{' '.join(words)}\" ;;")
        choices += [f"        {verb}:{flag}) words=\"{' '.join(values)}\" ;;" for flag, values in of_flags.items()]
    own = "(( $+functions[compdef] )) || { autoload -U compinit && compinit -u; }\n"  # a zsh without completion of its own
    head = f"{own}autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"""# bench completion for {shell}: eval "$(bench completion {shell})", or write it into a file once
{head}_bench() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" verb="" words="" w i
    for ((i = 1; i < COMP_CWORD; i++)); do
        w="${{COMP_WORDS[i]}}"
        case " {' '.join(verbs)} " in *" $w "*) verb="$w"; break ;; esac
    done
    COMPREPLY=()
    case "$prev" in
        {'|'.join(sorted(_FOLDERS))}) local IFS=$'\\n'; COMPREPLY=($(compgen -f -- "$cur")); return ;;
        {'|'.join(sorted(_NAMED))}) COMPREPLY=($(compgen -W "{' '.join(names)} train" -- "$cur")); return ;;
    esac
    case "$verb:$prev" in
{chr(10).join(choices)}
    esac
    if [ -z "$words" ]; then
        case "$verb" in
            "") words="{' '.join([*verbs, '--plugins', '--version', '--help'])}" ;;
{chr(10).join('    ' + c for c in cases)}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    local IFS=$'\\n' # names of files may hold spaces
    [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$cur"))
}}
complete -o filenames -F _bench bench
"""


def _verbs(parser: argparse.ArgumentParser) -> Iterator[tuple[str, tuple[list[str], dict[str, list[str]], Any]]]:
    """(verb, (its flags, flag -> choices, what stands after them: "artefacts" or words))."""
    (verbs,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, one in verbs.choices.items():
        flags, choices, rest = [], {}, []
        for a in one._actions:
            if isinstance(a, argparse._SubParsersAction) or a.choices and not a.option_strings:
                rest = list(a.choices or ())
            elif a.option_strings:
                flags += [o for o in a.option_strings if o.startswith("--")]
                if a.choices:
                    choices[a.option_strings[-1]] = [str(c) for c in a.choices]
                elif a.option_strings[-1] == "--suite":
                    from bench.suites import SUITES

                    choices["--suite"] = list(SUITES)
        yield name, (flags, choices, "artefacts" if any(a.dest == "artefacts" for a in one._actions) else rest)
