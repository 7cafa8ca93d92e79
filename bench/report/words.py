"""Words and signs as a paper prints them: letters for parameters, arrows, the fields of a docstring."""

import re
from collections.abc import Iterable

_LETTERS = {
    "alpha": "\u03b1", "beta": "\u03b2", "gamma": "\u03b3", "delta": "\u03b4", "eta": "\u03b7", "lambda": "\u03bb", "xi": "\u03be",
    "rho": "\u03c1", "tau": "\u03c4", "omega": "\u03c9", "sigma": "\u03c3", "epsilon": "\u03b5",
}
_LOWER = {**dict(zip("0123456789", "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089"))}
_SIGNS = {"<->": "\u2194", "->": "\u2192", ">=": "\u2265", "<=": "\u2264", "+-": "\u00b1", "+/-": "\u00b1", "!=": "\u2260"}
_SIGN = re.compile("|".join(re.escape(s) for s in sorted(_SIGNS, key=len, reverse=True)))
_TIMES = re.compile(r"(?<=\d )x(?= \d)")
_LETTER = re.compile(rf"(?<![A-Za-z.\-/`])({'|'.join(_LETTERS)})(?:_(\d))?(?![A-Za-z-]|\.\w)")
_FIELD = re.compile(r"^([A-Z][a-z]+):\s+")


def pretty(text: str) -> str:
    """"xi_1 -> 0" as ξ₁ → 0. Names with other endings (lambda_ml) keep them behind the letter."""
    text = _TIMES.sub("\u00d7", _SIGN.sub(lambda m: _SIGNS[m[0]], text))
    return _LETTER.sub(lambda m: _LETTERS[m[1]] + "".join(_LOWER[d] for d in m[2] or ""), text)


def plain(value: object) -> str:
    """A recorded value as a reader says it: 1.0 is 1, False is no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return {"True": "yes", "False": "no"}.get(str(value), str(value))


def fields(doc: str) -> dict[str, str]:
    """The fields of an artefact's docstring, each in full however many lines it has: {"": its first words, "Claim": ...}.
    Lines without a field's name belong to the field before."""
    found: dict[str, list[str]] = {"": []}
    at = ""
    for line in (x.strip() for x in doc.strip().splitlines()):
        if m := _FIELD.match(line):
            at, line = m[1], line[m.end():]
        elif not line and at == "":
            continue
        if line:
            found.setdefault(at, []).append(line)
    return {k: pretty(" ".join(v)) for k, v in found.items() if v}


def joined(parts: Iterable[str]) -> str:
    return " ".join(p for p in parts if p)
