"""The house: files that fit on a few screens, functions that fit on two, names that say what they hold."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = [
    path
    for package in ("annotation", "rlhf", "config")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "migrations" not in path.parts
]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 80
REASON = "Long because"
"""Begins a sentence at the top of a longer file or function, which says why it is not split."""
EMPTY_NAMES = {"asked", "bury", "found", "held", "of", "one", "said", "sow", "told"}
"""Names of variables and functions that do not say what they hold. `Class.of(…)` builds a Class."""


def id_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=id_of)
def test_a_long_file_or_function_says_why(path):
    source = path.read_text()
    tree = ast.parse(source)
    if source.count("\n") > MAX_FILE_LINES:
        assert REASON in (ast.get_docstring(tree) or ""), f"{source.count(chr(10))} lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                assert REASON in (ast.get_docstring(node) or ""), f"{node.name}: {lines} lines"


@pytest.mark.parametrize("path", MODULES, ids=id_of)
def test_a_name_says_what_it_holds(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef) and not is_constructor(node):
            names.add(node.name)
    assert not names & EMPTY_NAMES


def is_constructor(function: ast.FunctionDef) -> bool:
    return function.name == "of" and any(
        isinstance(decorator, ast.Name) and decorator.id == "classmethod"
        for decorator in function.decorator_list
    )
