"""The README's commands and Python lines, run as printed in a copy of the project, long trainings shortened."""

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
    """Contents of the README's code blocks in this language, "" for those in none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [content for name, content in found if name == language]


def words(command):
    """Script and flags of a command: [name, *flags]; of train.sh and test.sh the Python script that they start."""
    _, name, *flags = shlex.split(command, comments=True)
    return [{"train.sh": "main.py", "test.sh": "test.py"}.get(name, name), *flags]


def commands():
    """The README's commands, as `words` returns them."""
    return [words(line) for block in blocks("bash") for line in block.splitlines()]


def shape(text):
    """The words of an output, whatever its numbers, architectures and line breaks."""
    for pattern, word in ((r"[jkl]\d{36}", "ARCH"), (r"(\d+/[\d.]+ )*\d+/[\d.]+", "LAYERS"), (r"-?\d[\d,.]*", "#")):
        text = re.sub(pattern, word, text)
    return " ".join(text.split())


def test_the_commands_run_in_this_order_and_print_what_it_shows(script, project):
    shutil.copytree(ROOT / "results" / "published", project / "results" / "published")
    (project / "mine").mkdir()
    measured = dataset.sample_architectures(150, seed=8)
    content = {f"a{i}": {"arch": arch, "sop_rank": 50 + arch.count("1") / 2} for i, arch in enumerate(measured)}
    (project / "mine" / dataset.TRAIN_FILE).write_text(json.dumps(content))
    others = {f"b{i}": {"arch": arch} for i, arch in enumerate(dataset.sample_architectures(20, seed=9))}
    (project / "mine" / dataset.TEST_FILE).write_text(json.dumps(others))
    found, printed = commands(), ""
    assert len(found) >= 10
    for name, *flags in found:
        if name == "main.py" and "--recipe" not in flags:
            flags += ["--num_epochs", "40"]
        answer = script(name, *flags, root=project, here=project)
        assert answer.returncode == 0, (name, flags, answer.stderr)
        printed += answer.stdout
    shown = [part for block in blocks("") for part in re.split(r"^\.\.\.$", block, flags=re.MULTILINE)]
    assert len(shown) >= 4
    for part in shown:
        assert shape(part) in shape(printed)
    best = json.loads((project / "best.json").read_text())["architectures"][0]["arch"]
    assert best.count("1") >= max(arch.count("1") for arch in measured)  # more is better: --largest


def test_commands_in_the_text_have_their_flags(script):
    files = [ROOT / "README.md", *ROOT.glob("[dlr]*/README.md")]
    text = "\n".join(re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.MULTILINE | re.DOTALL) for file in files)
    inline = {" ".join(code.split()) for code in re.findall(r"`((?:python|bash)\s[^`]*)`", text)}
    found = [words(code) for code in sorted(inline) if "pytest" not in code and "check.sh" not in code]
    assert len(found) >= 8
    helps = {}
    for name, *flags in found:
        command = [name, flags.pop(0)] if name == "tools/surrogate.py" else [name]
        key = " ".join(command)
        helps[key] = helps.get(key) or script(*command, "--help").stdout
        for flag in flags:
            assert not flag.startswith("--") or flag == "--help" or f" {flag} " in helps[key], (name, flag)


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
