"""The README's commands and Python lines, run as printed in a copy of the project; long trainings are shortened."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import torch
from conftest import ROOT

import dataset
from predictors import load_models
from scoring import score

README = (ROOT / "README.md").read_text()


def blocks(language):
    """Contents of the README's code blocks in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands():
    """The README's commands as lists of words, without comments; train.sh and test.sh as what they start."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [["main.py" if w[1] == "train.sh" else "test.py" if w[1] == "test.sh" else w[1], *w[2:]] for w in words]


def test_the_commands_run_in_this_order(script, project):
    shutil.copytree(ROOT / "results" / "published", project / "results" / "published")
    (project / "mine").mkdir()
    measured = dataset.sample_architectures(150, seed=8)
    content = {f"a{i}": {"arch": arch, "sop_rank": 50 + arch.count("1") / 2} for i, arch in enumerate(measured)}
    (project / "mine" / dataset.TRAIN_FILE).write_text(json.dumps(content))
    found = commands()
    assert len(found) >= 10
    for name, *flags in found:
        if name == "main.py" and "--recipe" not in flags:
            flags += ["--num_epochs", "40"]
        answer = script(name, *flags, root=project, here=project)
        assert answer.returncode == 0, (name, flags, answer.stderr)
    best = json.loads((project / "best.json").read_text())["architectures"][0]["arch"]
    assert best.count("1") >= max(arch.count("1") for arch in measured)  # more is better: --largest


def test_the_python_lines_print_scores():
    (code,) = (block for block in blocks("python") if "load_models" in block)
    assert len(code.splitlines()) <= 5
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    models = load_models(["market1501", "sop"], "reference", ROOT / "results" / "published")
    expected = score(models, ["l" + "111" * 12, "j" + "331" * 10 + "000000"])
    assert printed == f"{expected}\n"
    assert torch.equal(expected[:, 0] < expected[:, 1], torch.tensor([True, True]))  # the largest one is better


def test_every_file_of_the_layout_exists():
    layout = README.split("## Layout")[1]
    names = re.findall(r"\b[\w]+\.(?:py|sh|ipynb)\b", layout)
    assert len(names) > 25
    for name in names:
        assert any((ROOT / folder / name).exists() for folder in (".", "recipes", "tools")), name
    assert {path.name for path in ROOT.glob("*.py")} <= set(names)
    assert len(README.splitlines()) <= 250
