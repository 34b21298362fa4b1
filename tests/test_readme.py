"""The README: its commands and Python run as printed in a copy of the project, and print what it shows."""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language):
    """Contents of the README's code blocks in this language, "" for those in none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [content for name, content in found if name == language]


def words(command):
    """Script and flags of a command: [name, *flags]; of train.sh and test.sh the Python script that they start."""
    _, name, *flags = shlex.split(command, comments=True)
    return [{"train.sh": "main.py", "test.sh": "test.py"}.get(name, name), *flags]


def commands():
    """The README's commands of bash and Python, as `words` returns them."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [words(line) for line in lines if line.startswith(("bash", "python"))]


def without_seconds(text):
    """The words and figures of an output, whatever its times and line breaks."""
    return " ".join(re.sub(r"in [\d.]+ seconds", "in # seconds", text).split())


def shape(text):
    """The words of an output, whatever its numbers, architectures and line breaks."""
    for pattern, word in ((r"[jkl]\d{36}", "ARCH"), (r"(\d+/[\d.]+ )*\d+/[\d.]+", "LAYERS"), (r"-?\d[\d,.]*", "#")):
        text = re.sub(pattern, word, text)
    return " ".join(text.split())


def on_the_published_runs_cpu(results):
    """Whether the losses of a whole training ended as on that kind of CPU; others round differently."""
    recorded = {"sop": 0.272535, "veri": 0.210620}
    files = {name: torch.load(results / f"{name}_final.pth", weights_only=True) for name in recorded}
    return all(files[name]["train_loss"][-1] == pytest.approx(loss, abs=1e-6) for name, loss in recorded.items())


@pytest.mark.parametrize(
    "epochs", [("--num_epochs", 40), pytest.param((), marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_the_commands_run_in_this_order_and_print_what_it_shows(script, project, epochs):
    """In full, on the published run's kind of CPU, every figure is the README's."""
    found, printed = commands(), ""
    assert len(found) >= 7
    for name, *flags in found:
        if name == "main.py" and "--recipe" not in flags:
            flags += epochs
        answer = script(name, *flags, root=project, here=project)
        assert answer.returncode == 0, (name, flags, answer.stderr)
        printed += answer.stdout
    same = not epochs and on_the_published_runs_cpu(project / "results" / "surrogate")
    comparable, shown = without_seconds if same else shape, blocks("")
    assert len(shown) >= 2
    for block in shown:
        assert comparable(block) in comparable(printed)
    if not (epochs or same):
        pytest.skip("not the published run's kind of CPU: the figures of training were not compared")


def test_commands_in_the_text_have_their_flags(script):
    text = README + "".join(path.read_text() for path in ROOT.glob("[dlr]*/README.md"))
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [words(code) for code in re.findall(r"`((?:python|bash)\s[^`]*)`", text)]
    assert len(found) >= 8
    for name, *flags in found:
        if name not in ("-m", "check.sh"):  # of pytest, too
            help = script(name, "--help").stdout
            for flag in flags:
                assert not flag.startswith("--") or f" {flag} " in help, (name, flag)


def python_block(word):
    (code,) = (block for block in blocks("python") if word in block)
    return code


def run_python(code, folder):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=100).stdout


def test_the_script_for_own_measurements_finds_what_they_reward(project):
    """The accuracies that it makes up count the characters 1: the more, the better."""
    output = run_python(python_block("mine_accuracy"), project)
    *others, best = re.findall(r"\b([jkl]\d{36})\b(.*)", output)
    assert best[0][1:].count("1") >= 24
    found = [[float(number) for number in re.findall(r"([\d.]+)%", line)] for _, line in others]
    counts = [arch.count("1") for arch, _ in others]
    assert np.argmax([share for share, *_ in found]) == np.argmax(counts)
    assert all(0 <= low < high <= 100 for _, low, high in found)


def test_the_recipe_passes_the_lint_as_pasted(tmp_path):
    (tmp_path / "neighbours.py").write_text(python_block("class Recipe"))
    for command in (["check", "--config", str(ROOT / "pyproject.toml")], ["format", "--check", "--line-length", "120"]):
        lint = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", f'src=["{ROOT}"]', "neighbours.py"]
        found = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert found.returncode == 0, found.stdout + found.stderr


def test_every_file_of_the_layout_exists_and_every_file_is_in_it():
    layout = README.split("## Layout")[1]
    named = set(re.findall(r"\w+\.(?:py|sh|ipynb)\b", layout))
    paths = [path for room in (".", "recipes", "search", "common") for path in (ROOT / room).iterdir()]
    assert {path.name for path in paths if path.suffix == ".py"} - {"__init__.py"} <= named
    assert named <= {path.name for path in (*paths, *(ROOT / "data" / "surrogate").iterdir())}
    for path in (ROOT / "tools").glob("*.py"):
        assert path.stem in layout
