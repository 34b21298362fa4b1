"""Flags and their mistakes, how a command ends, and what progress looks like without a terminal and on one."""

import errno
import io
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

import cli
from common.files import InputError, log


def run_python(code, **options):
    """Run code in a new Python in the project: (status, output, errors)."""
    options = {"stdout": subprocess.PIPE, "cwd": ROOT} | options
    answer = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, **options)
    return answer.returncode, answer.stdout, answer.stderr


@pytest.mark.parametrize("name", ["main.py", "test.py"])
def test_help_and_wrong_flags_are_answered_without_torch_numpy_and_scipy(name):
    for flag, expected in (
        ("--help", (0, "")),
        ("--task=x", (2, f"{name}: unrecognized arguments: --task=x (see --help)\n")),
    ):
        code = (
            f"import runpy, sys; sys.argv = {[name, flag]}; sys.modules |= dict.fromkeys(['torch', 'numpy', 'scipy'])"
        )
        assert run_python(f"{code}; runpy.run_path('{name}', run_name='__main__')")[::2] == expected


TYPES = {  # of flags: what is read, and what is wrong
    "positive": ({"1": 1}, ["0", "1.5", "x"]),
    "top": ({"1": 1, "1000": 1000}, ["0", "1001"]),
    "seed": ({"0": 0, "4294967295": 2**32 - 1}, ["-1", "4294967296", "9" * 5000]),
    "first_seed": ({"2147483647": 2**31 - 1}, ["-1", "2147483648"]),
    "folder": ({"d/": "d/"}, [""]),
    "output_file": ({"a/b": Path("a/b")}, ["", ".", "..", "a/.."]),
    "file_name": ({"..X": "..X"}, ["", ".", "..", "a/b", "a\\b", "a\0"]),
    "task_name": ({"sop_rank": "sop", "My-2": "My-2"}, ["a b", "\n" + "x" * 10**6]),
}


@pytest.mark.parametrize("name", TYPES)
def test_a_flag_is_read_or_a_wrong_one_is_one_line(capsys, name):
    parser, (right, wrong) = cli.Parser(prog="command.py"), TYPES[name]
    parser.add_argument("--flag", type=getattr(cli, name))
    assert {text: parser.parse_args(["--flag", text]).flag for text in right} == right
    for text in wrong:
        with pytest.raises(SystemExit, match="2"):
            parser.parse_args(["--flag", text])
        said = capsys.readouterr().err
        assert (
            re.fullmatch(r"command\.py: argument --flag: .*: expected .* \(see --help\)\n", said) and len(said) < 1200
        )


def test_the_flag_of_tasks_may_be_repeated():
    parser = cli.Parser()
    cli.add_data(parser)
    assert parser.parse_args(["--tasks", "b", "sop", "--tasks", "a_accuracy"]).tasks == ["b", "sop", "a"]


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("main", "status", "output", "errors"),
    [
        (lambda _: print(7) or 3, 3, "7\n", ""),
        (lambda _: fail(InputError("a\nb\x1b[31m")), 2, "", "command.py: a\\nb\\x1b[31m\n"),
        (lambda _: Path("/nowhere/file").read_bytes(), 2, "", "command.py: /nowhere/file: No such file or directory\n"),
        (lambda _: bytearray(2**62), 2, "", "command.py: MemoryError\n"),
        (lambda _: signal.raise_signal(signal.SIGINT), 130, "", "command.py: interrupted\n"),
        (lambda _: log.info("d\udcff \n%s") or log.debug("no"), 0, "d\\udcff \\n%s\n", ""),
        (lambda _: cli.messages_to_stderr() or print(1) or log.info("said"), 0, "1\n", "said\n"),
    ],
)
def test_a_command_ends_with_a_status_and_at_most_a_line(monkeypatch, capsys, main, status, output, errors):
    monkeypatch.setattr(sys, "argv", ["a/command.py"])
    monkeypatch.setattr(log, "propagate", False)  # pytest-xdist cannot send all that is said
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which is closed for writing after some errors
    assert cli.call(main) == status
    assert capsys.readouterr() == (output, errors)


def test_a_bug_shows_its_traceback_and_output_on_a_full_disk_is_one_line():
    code = "import cli, sys; sys.argv = ['command.py']; cli.run(lambda _: {})"
    status, _, errors = run_python(code.format("1 / 0"))
    assert status == 1 and errors.startswith("Traceback") and "ZeroDivisionError" in errors
    with open("/dev/full", "w") as full:
        answer = run_python(code.format("print('the results')"), stdout=full)
    assert answer == (2, None, f"command.py: {os.strerror(errno.ENOSPC)}\n")
    press = "__import__('atexit').register(__import__('os').kill, __import__('os').getpid(), 2) and print('done')"
    assert run_python(code.format(press)) == (0, "done\n", "")  # the work is done: Ctrl-C changes nothing


# (name, epoch, epochs, loss, train tau, validation tau), and what is printed
REPORTS = {
    ("sop", 1, 4, 0.75, 0.25, 0.5): "sop epoch 1/4 loss 0.7500 tau train (dropout on) 0.2500 validation 0.5000",
    ("sop", 4, 4, 0.25, None, -0.125): "sop epoch 4/4 loss 0.2500 validation -0.1250",
    ("my-task", 6, 300, 0.125, -0.5, math.nan): "my-task epoch 6/300 loss 0.1250 tau train (dropout on) -0.5000 "
    "validation none, as all scores are equal",
}


@pytest.mark.parametrize("interval", [1, 3])
def test_without_a_terminal_a_line_is_printed_every_few_epochs_and_for_the_last(capsys, interval):
    progress = cli.Progress(interval)
    for report in REPORTS:
        progress(*report)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [line for line in REPORTS.values() if interval == 1 or "1/4" not in line]


def test_on_a_terminal_every_task_has_a_bar_that_ends_full(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    terminal.isatty = lambda: True
    progress = cli.Progress(1)
    for report in REPORTS:
        progress(*report)
    progress.close(["my-task"])  # which needed few of its epochs
    assert all(text in terminal.getvalue() for text in ("4/4", "validation -0.1250", "6/6", "validation    none"))
