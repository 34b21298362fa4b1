"""Measure the tests: change one token of a module at a time, and see whether the tests of that module fail.

python -m pytest -m slow -s tests/test_mutants.py                       4 mutants of every module, half an hour
python -m pytest -m slow -s tests/test_mutants.py --mutants 30 -k gp

Prints the mutants that survive. Some are equivalent to the original; each of the others is a test that is missing.
"""

import ast
import io
import os
import random
import shutil
import subprocess
import sys
import tokenize

import pytest
from helpers import ROOT

MODULES = [path.relative_to(ROOT) for path in ROOT.glob("*.py")]
for room in ("common", "data", "recipes", "search", "tools"):
    MODULES += [path.relative_to(ROOT) for path in (ROOT / room).rglob("*.py") if path.stem != "__init__"]
SWAPS = {"//": "*", "**": "*", "not": "", "is": "is not", "in": "not in", "None": "0"}
PAIRS = "< <=, > >=, == !=, + -, * /, += -=, | &, and or, True False, min max, any all, break continue"
for pair in PAIRS.split(", "):
    one, another = pair.split()
    SWAPS |= {one: another, another: one}


def mutants(source):
    """(line, token, another token, changed source) for each change of one token that still compiles."""
    lines = source.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        other = SWAPS.get(token.string)
        if token.type == tokenize.NUMBER:
            other = str(ast.literal_eval(token.string) + 1)
        elif token.type == tokenize.STRING and token.string.startswith('"') and " " not in token.string:
            other = f'"X{token.string[1:]}'
        if other is None:
            continue
        (row, start), (_, end) = token.start, token.end
        line = lines[row - 1]
        changed = "".join([*lines[: row - 1], line[:start] + other + line[end:], *lines[row:]])
        try:
            compile(changed, "mutant", "exec")
        except SyntaxError:
            continue
        yield row, token.string, other, changed


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("module", MODULES, ids=str)
def test_most_mutants_are_caught(module, tmp_path, request):
    copy, test = tmp_path / "copy", f"tests/{module.parent}/test_{module.name}"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__"))

    def passes():
        command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", test]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        try:
            return subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=300).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    assert passes(), f"{test} fails without a change"
    source = (ROOT / module).read_text()
    tried = list(mutants(source))
    random.Random(str(module)).shuffle(tried)
    tried, survivors = tried[: request.config.getoption("mutants")], []
    for row, token, other, changed in tried:
        (copy / module).write_text(changed)
        if passes():
            survivors.append(f"{module}:{row}: {token} -> {other}: {source.splitlines()[row - 1].strip()}")
    print(f"\n{module}: {len(survivors)} of {len(tried)} mutants survive", *survivors, sep="\n", flush=True)
    assert len(survivors) <= len(tried) / 2
