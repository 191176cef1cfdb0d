"""The words that prose of this project avoids, and the prose in a file: Markdown, template, code.

Plain, present-day technical English in US spelling, with the terms of the field. Identifiers, settings'
keys, database fields and code in backticks are not prose.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

AVOIDED = {
    r"reckon\w*": "calculate, estimate",
    r"anew": "again",
    r"for ever": "permanently, without limit",
    r"mend(s|ed|ing)?": "fix",
    r"lately": "recently",
    r"(grew|grows|grown) from": "parent model",
    r"tick(s|ed|ing)?": "acknowledge, select",
    r"cautions?": "warning",
    r"who(m|se)?ever": "anybody who, the person who",
    r"beside": "next to, in addition to",
    r"by lot": "at random",
    r"step size": "learning rate",
    r"weigh(ed|ing) (by|mean|average)": "weighted",
    r"climb(s|ed|ing)?": "optimize, rise",
    r"heard of": "online",
    r"hearken\w*|albeit|thrice|whence|thence|hither|aught|naught": "today's word",
    r"per cent": "%",
    r"as right as it is sure": "calibrated",
}
"""Patterns of words and phrases, each with the words to use instead."""

_ISE = (
    "author|categor|central|character|critic|custom|emphas|equal|final|formal|general|harmon|ideal"
    "|initial|local|maxim|memor|minim|modern|neutral|normal|optim|organ|parallel|penal|priorit|quant"
    "|random|real|recogn|regular|serial|special|stabil|standard|summar|symbol|synchron|token|util"
    "|vector|visual"
)

BRITISH = {
    rf"\w*({_ISE})is(e|es|ed|er|ers|ing|ation|ations)": "-ize, -ization",
    r"\w*(behavi|col|fav|flav|harb|hon|hum|lab|neighb|rum|vap)our\w*": "-or",
    r"(label|model|travel|signal|channel|total|level)l(ed|ing|er)": "one l",
    r"(un)?analys(e|ed|ing)": "-yze",
    r"(sub)?licences?": "license",
    r"(de|of)fences?": "-se",
    r"(ac)?knowledgements?|judgements?": "-dgment",
    r"catalogues?": "catalog",
    r"(cent|fib|lit|met)res?": "-er",
    r"grey\w*": "gray",
    r"(mis)?spelt|learnt|burnt|leant|dreamt": "-ed",
    r"sceptic\w*": "skeptic-",
    r"artefacts?": "artifact",
    r"programmes?": "program",
    r"practis(e|es|ed|ing)": "practice",
    r"whilst|amongst": "while, among",
    r"fulfil|enrol|skilful": "-ll",
}
"""Patterns of British spellings, each with what the US spelling has."""

ALLOWED = {
    ("docs/log/faults_and_recovery.md", "misspelt"): "part of a test's name",
    ("docs/settings.md", "beside"): "a value of the setting `ema.export`",
    ("rlhf/training/configs/ppo_groups.py", "beside"): "a value of the setting `ema.export`",
    ("annotation/models/projects.py", "beside"): "a field's help text, part of a migration",
    ("annotation/models/projects.py", "per cent"): "a field's help text, part of a migration",
    ("annotation/models/comparisons.py", "licence"): "a field's help text, part of a migration",
    ("annotation/protocols/presets.py", "behaviour"): "a category's name, as published",
    ("annotation/protocols/presets.py", "organised"): "a category's name, as published",
}
"""Uses that stay, by file and word, with the reason."""

_LISTS = {**AVOIDED, **BRITISH}
_ANY = re.compile(rf"\b(?:{'|'.join(f'(?:{p})' for p in _LISTS)})\b", re.IGNORECASE)


def better(word: str) -> str:
    """What to write in place of an avoided word."""
    return next(b for p, b in _LISTS.items() if re.fullmatch(p, word, re.IGNORECASE))


def avoided_in(path: Path, name: str) -> list[str]:
    """The avoided words in one file's prose, each with a better one; `name` is its path in ALLOWED."""
    words = (match[0].lower() for text in prose(path) for match in _ANY.finditer(text))
    return [f"{name}: {w} → {better(w)}" for w in words if (name, w) not in ALLOWED]


def prose(path: Path) -> list[str]:
    """The texts of a file that a person reads as sentences."""
    return [re.sub(r"`[^`\n]+`", " ", text) for text in READERS[path.suffix](path.read_text())]


def _markdown(text: str) -> list[str]:
    text = re.sub(r"^ *```.*?^ *```", " ", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]+`", " ", text)
    return [re.sub(r"\]\([^)]*\)|https?://\S+", " ", text)]


def _template(text: str) -> list[str]:
    texts = [second for _, second in re.findall(r"translate\s+(['\"])(.*?)\1", text)]
    visible = re.sub(r"{%.*?%}|{{.*?}}|<[^>]*>", " ", text, flags=re.DOTALL)
    attributes = re.findall(r'(?:title|placeholder|aria-label|alt)="([^"{]+)"', text)
    return [*texts, visible, *attributes]


def _python(text: str) -> list[str]:
    """Comments, docstrings, and strings that hold more than one word."""
    nodes = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant))
    strings = [n.value for n in nodes if isinstance(n.value, str) and " " in n.value.strip()]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return strings + [token.string for token in tokens if token.type == tokenize.COMMENT]


def _script(text: str) -> list[str]:
    comments = re.findall(r"//([^\n]*)|/\*(.*?)\*/", text, re.DOTALL)
    strings = re.findall(r"([\"'`])((?:(?!\1).)* (?:(?!\1).)*)\1", text)
    return ["".join(pair) for pair in comments] + [string for _, string in strings]


READERS = {
    ".md": _markdown,
    ".html": _template,
    ".txt": _template,
    ".py": _python,
    ".js": _script,
}
"""By a file's suffix, the function that finds its prose."""
