import errno
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers import ROOT

import cli


def run_python(code, **options):
    options = {"stdout": subprocess.PIPE, "env": os.environ | {"PYTHONUNBUFFERED": ""}} | options
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("name", ["main.py", "test.py"])
@pytest.mark.parametrize(
    ("flag", "status", "errors"),
    [("--help", 0, ""), ("--task=sop", 2, "{}: unrecognized arguments: --task=sop (see --help)\n")],
)
def test_help_and_wrong_flags_answer_at_once(name, flag, status, errors):
    code = f"import sys; sys.argv = {[name, flag]}; sys.modules |= dict.fromkeys(['torch', 'numpy', 'scipy'])\n"
    answer = run_python(f"{code}import runpy; runpy.run_path('{name}', run_name='__main__')")
    assert (answer.returncode, answer.stderr) == (status, errors.format(name))


@pytest.fixture
def parser():
    parser = cli.Parser(prog="command.py")
    cli.add_predictors(parser)
    for kind in ("positive", "top", "seed", "output_file", "file_name"):
        parser.add_argument(f"--{kind}", type=getattr(cli, kind))
    return parser


@pytest.mark.parametrize(
    ("flag", "value", "read", "wrong", "expected"),
    [
        ("--positive", "1", 1, ("0", "1.5", "x"), "expected an integer above 0"),
        ("--top", "1", 1, ("0",), "expected an integer from 1 to 1,000"),
        ("--top", "1000", 1000, ("1001",), "expected an integer from 1 to 1,000"),
        ("--seed", "0", 0, ("-1",), r"expected an integer from 0 to 2\*\*32 - 1"),
        ("--seed", "4294967295", 2**32 - 1, (str(2**32), "9" * 5000), r"expected .* from 0 to 2\*\*32 - 1"),
        ("--data_path", "d/", "d/", ("",), "expected a folder's name"),
        ("--results_path", "r", "r", ("",), "expected a folder's name"),
        ("--output_file", "a/b", Path("a/b"), ("", ".", "..", "a/.."), "expected a file's name"),
        ("--file_name", "..X", "..X", ("", ".", "..", "a/b", "a\\b", "a\0"), "expected a name without a path"),
        ("--tasks", "sop_rank", ["sop"], ("a b", "\n" + "x" * 10**6), "expected a task's name, such as sop"),
        ("--recipe", "gp", "gp", ("best",), "invalid choice: 'best' .choose from '?reference'?, '?gp'?, '?ridge'?."),
    ],
)
def test_a_flag_is_read_or_a_wrong_one_is_one_line(parser, capsys, flag, value, read, wrong, expected):
    assert getattr(parser.parse_args([flag, value]), flag[2:]) == read
    for value in wrong:
        with pytest.raises(SystemExit) as ended:
            parser.parse_args([flag, value])
        output = capsys.readouterr()
        assert (ended.value.code, output.out) == (2, "")
        assert re.fullmatch(rf"command\.py: .*{expected}.* \(see --help\)\n", output.err)
        assert len(output.err) < 1200


def test_the_flag_of_tasks_may_be_repeated(parser):
    assert parser.parse_args(["--tasks", "b", "sop", "--tasks", "a_accuracy"]).tasks == ["b", "sop", "a"]


def run_main(body, **options):
    """A command of this body, run by cli.run: status, output and errors."""
    code = f"import cli\nfrom common.files import *\ndef main():\n{textwrap.indent(textwrap.dedent(body), ' ')}\n"
    answer = run_python(f"{code}\nimport sys; sys.argv[0] = 'a/command.py'; cli.run(main)", **options)
    return answer.returncode, answer.stdout, answer.stderr


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("print(7); return 3", (3, "7\n", "")),
        ("raise InputError('a\\nb\\x1b[31m')", (2, "", "a\\nb\\x1b[31m\n")),
        ("open('/nowhere/file')", (2, "", "/nowhere/file: No such file or directory\n")),
        ("bytearray(2**62)", (2, "", "MemoryError\n")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", (130, "", "interrupted\n")),
        ("log.info('d\\udcff \\n%s'); log.debug('no')", (0, "d\\udcff \\n%s\n", "")),
        ("cli.messages_to_stderr(); print(1); log.info('said')", (0, "1\n", "said\n")),
    ],
)
def test_a_command_ends_with_a_status_and_at_most_a_line(body, expected):
    status, output, errors = expected
    if status in (2, 130):
        errors = f"command.py: {errors}"
    assert run_main(body) == (status, output, errors)


def test_a_bug_shows_its_traceback():
    status, _, errors = run_main("1 / 0")
    assert status == 1 and errors.startswith("Traceback") and "ZeroDivisionError" in errors


def test_output_that_cannot_be_written_at_the_end_is_one_line():
    with open("/dev/full", "w") as full:
        answer = run_main("print('the results')", stdout=full)
    assert answer == (2, None, f"command.py: {os.strerror(errno.ENOSPC)}\n")


def test_a_message_can_be_printed_on_any_terminal():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    answer = run_main("log.info('\\u2126'); raise InputError('\\u2126')", env=environment)
    assert answer == (2, "\\u2126\n", "command.py: \\u2126\n")


def test_ctrl_c_after_the_work_is_done_changes_nothing():
    body = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGINT); print('done'); return 1"
    assert run_main(body) == (1, "done\n", "")
