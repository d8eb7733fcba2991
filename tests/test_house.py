"""Rules of the house that no linter checks: sizes of files and wings, words of docstrings."""

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

import midway

SOURCE = Path(midway.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
WINGS = [SOURCE / name for name in ("data", "models", "evals", "bench", "export")]
CLAUSES = re.compile(r"(What|Whether|How|Who|Whose|Which|Where)\b")
COMMENTED = ("nn", "models", "methods", "train")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module


def length(node: ast.FunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def lines_of(file: Path) -> int:
    return file.read_text().count("\n")


def definitions(file: Path) -> list[Definition]:
    return [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, Definition)]


def test_no_file_is_over_350_lines_and_the_median_is_about_150() -> None:
    sizes = {file: lines_of(file) for file in FILES if file.name != "__init__.py"}
    assert not {file.name: size for file, size in sizes.items() if size > 350}
    assert 80 <= median(sizes.values()) <= 160


def test_no_function_is_over_60_lines() -> None:
    long = {
        f"{file.relative_to(SOURCE)}:{node.name}": length(node)
        for file in FILES
        for node in definitions(file)
        if isinstance(node, ast.FunctionDef) and length(node) > 60
    }
    assert not long


def test_no_wing_has_more_than_twelve_files() -> None:
    folders = [folder for wing in WINGS for folder in (wing, *wing.iterdir()) if folder.is_dir()]
    sizes = {str(folder.relative_to(SOURCE)): len([*folder.glob("[!_]*.py")]) for folder in folders}
    assert not {folder: size for folder, size in sizes.items() if size > 12}


def test_no_docstring_begins_with_a_clause() -> None:
    begun = [
        f"{file.relative_to(SOURCE)}:{getattr(node, 'lineno', 1)}"
        for file in FILES
        for node in definitions(file)
        if CLAUSES.match(ast.get_docstring(node) or "")
    ]
    # Strings below a field or constant document it.
    begun += [
        f"{file.relative_to(SOURCE)}:{number}"
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.match(r'\s*"""(What|Whether|How|Who|Whose|Which|Where)\b', line)
        and f"{file.relative_to(SOURCE)}:{number - 1}" not in begun
    ]
    assert not begun


@pytest.mark.parametrize("folder", COMMENTED)
def test_three_to_eight_lines_of_a_hundred_are_comments(folder: str) -> None:
    count: Counter[str] = Counter()
    for file in (SOURCE / folder).rglob("*.py"):
        text = file.read_text()
        count["lines"] += len([line for line in text.splitlines() if line.strip()])
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        count["comments"] += len({t.start[0] for t in tokens if t.type == tokenize.COMMENT})
    assert 0.03 <= count["comments"] / count["lines"] <= 0.08
