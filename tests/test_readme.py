"""The README: its commands, script and recipe run as printed in a copy of the project, and print what it shows."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from helpers import README, README_RECIPE, ROOT, run_command


def blocks(language):
    """Contents of the README's code blocks in this language, "" for those in none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [content for name, content in found if name == language]


def add_the_recipe(project, name="neighbours", code=README_RECIPE):
    """Add a recipe as the README says."""
    (project / "recipes" / f"{name}.py").write_text(code)
    (line,) = re.findall(r'`("neighbours": .*?,)`', README)
    table = project / "recipes" / "__init__.py"
    line = line.replace("neighbours", name)
    if line not in table.read_text():  # as in a project that has it
        table.write_text(table.read_text().replace("RECIPES = {\n", f"RECIPES = {{\n    {line}\n"))


def comparable(text, figures):
    """An output, whatever its times and line breaks, and without `figures` whatever its numbers and architectures."""
    text = re.sub(r"in [\d.]+ seconds", "in # seconds", text)
    if not figures:
        text = re.sub(r"(-?\d[\d,.]*\s*)+", "# ", re.sub(r"[jkl]\d{36}|\d+/[\d.]+", "", text))
    return " ".join(text.split())


def on_the_published_runs_cpu(results):
    """Whether the losses of a whole training ended as on that kind of CPU; others round differently."""
    recorded = {"sop": 0.272535, "veri": 0.210620}
    files = {name: torch.load(results / f"{name}_final.pth", weights_only=True) for name in recorded}
    return all(files[name]["train_loss"][-1] == pytest.approx(loss, abs=1e-6) for name, loss in recorded.items())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("epochs", ["--num_epochs 40", pytest.param("", marks=pytest.mark.slow)])
def test_the_commands_run_in_a_clone_and_print_what_it_shows_and_the_clone_stays_clean(project, epochs, monkeypatch):
    """In full, on the published run's kind of CPU, every figure is the README's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"VIRTUAL_ENV": sys.prefix, "PYTHONSAFEPATH": "1", "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}

    def run(line):
        options = {"cwd": project, "env": environment, "capture_output": True, "text": True}
        answer = subprocess.run(["bash", "-c", line], **options)
        assert answer.returncode == 0, (line, answer.stderr)
        return answer.stdout

    add_the_recipe(project)
    (project / "data" / "example").mkdir()
    (project / "data" / "example" / "space.json").write_text(*blocks("json"))
    (fill_in,) = (block for block in blocks("python") if "next.json" in block)
    run("git init && git add --all && ruff check recipes/[_n]* && ruff format --check recipes/[_n]*")
    before, printed = run("git status --porcelain"), ""
    lines = [line.split("#")[0] for block in blocks("bash") for line in block.splitlines() if line[:2] in ("ba", "py")]
    assert len(lines) >= 7
    for line in lines:
        printed += run(line + epochs if "train.sh" in line and "--recipe" not in line else line)
        if "--count 25" in line:
            monkeypatch.chdir(project)
            exec(fill_in, {"train_and_test": lambda arch: 70 + arch.count("1") + 2 * arch.count("0")})
    run("python main.py --recipe neighbours --tasks sop")
    run("for name in crossval traverse surrogate publish; do python tools/$name.py --help || exit 1; done")
    assert subprocess.run(["bash", project / "train.sh", "--wrong"], env=environment).returncode == 2
    assert run("git status --porcelain") == before and not (project / ".venv").exists()
    same = not epochs and on_the_published_runs_cpu(project / "results" / "surrogate")
    assert len(blocks("")) >= 2
    for block in blocks(""):
        assert comparable(block, same) in comparable(printed, same)
    if not (epochs or same):
        pytest.skip("not the published run's kind of CPU: the figures of training were not compared")


def test_commands_in_the_text_have_their_flags():
    text = README + "".join(path.read_text() for path in ROOT.glob("[dlr]*/README.md"))
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [code.split() for code in re.findall(r"`(?:python|bash)\s([^`-][^`]*)`", text)]
    assert len(found) >= 8
    for name, *flags in found:
        if name != "check.sh":  # its flags are those of pytest
            help = run_command({"train.sh": "main.py", "test.sh": "test.py"}.get(name, name), "--help").stdout
            assert all(f" {flag} " in help for flag in flags if flag.startswith("--")), (name, flags)


def test_the_script_for_rounds_finds_what_is_best(capsys):
    """Accuracies that count the blocks of one kind: one of 6,561 has eight of them."""
    (code,) = (block for block in blocks("python") if "propose(" in block)
    exec(code, {"train_and_test": lambda arch: 70.0 + arch.count("1")})
    assert capsys.readouterr().out == "best: 11111111\n"


def test_every_file_that_the_layout_names_exists():
    names = re.findall(r"[\w/]+(?:\.(?:py|sh|ipynb|json)\b|/)", README.split("## Layout")[1])
    assert len(names) > 20
    assert not [name for name in names if not any(list(ROOT.glob(room + name)) for room in ("", "*/", "data/*/"))]


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_recipe_of_ones_own_breaks_no_test(tmp_path):
    """The README's, and one that draws random numbers."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "CVPR_*", "own"))
    add_the_recipe(copy)
    add_the_recipe(copy, "drawing", README_RECIPE.replace("torch.as", "torch.rand(len(ranks)) + torch.as"))
    answer = subprocess.run([sys.executable, "-m", "pytest", "-x"], cwd=copy, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-3000:]
