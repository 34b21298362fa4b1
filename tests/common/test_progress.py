import fcntl
import math
import os
import pty
import re
import struct
import sys
import termios

import pytest

from common.progress import Progress

# (name, epoch, epochs, loss, train tau, validation tau)
REPORTS = [
    ("sop", 1, 4, 0.75, 0.25, 0.5),
    ("my-task", 1, 300, 0.5, None, None),
    ("sop", 2, 4, 0.5, 0.0, None),
    ("sop", 4, 4, 0.25, 0.75, -0.125),
    ("my-task", 6, 300, 0.125, math.nan, None),
    ("my-task", 8, 300, 0.0625, None, None),
]


def show(progress, before_the_end=lambda: None):
    for report in REPORTS:
        progress(*report)
    before_the_end()
    progress.close()


@pytest.mark.parametrize(("interval", "shown"), [(1, range(6)), (2, (2, 3, 4, 5)), (50, (3,))])
def test_without_a_terminal_there_is_a_line_every_few_epochs_and_for_the_last(capsys, interval, shown):
    lines = [
        "sop        epoch    1/4  loss 0.7500  tau train (dropout on)  0.2500  validation  0.5000",
        "my-task    epoch    1/300  loss 0.5000",
        "sop        epoch    2/4  loss 0.5000  tau train (dropout on)  0.0000",
        "sop        epoch    4/4  loss 0.2500  tau train (dropout on)  0.7500  validation -0.1250",
        "my-task    epoch    6/300  loss 0.1250  tau train (dropout on) none, as all scores are equal",
        "my-task    epoch    8/300  loss 0.0625",
    ]
    show(Progress(interval))
    output = capsys.readouterr()
    assert output.out.splitlines() == [lines[i] for i in shown]
    assert output.err == ""


def screen(output, columns):
    """What a terminal of this width shows: its lines."""
    rows, row, column = [[]], 0, 0
    for code in re.findall(r"\x1b\[\w|.", output, re.DOTALL):
        if code == "\r":
            column = 0
        elif code == "\n":
            row += 1
        elif code == "\x1b[A":
            row -= 1
        else:
            assert len(code) == 1, f"unexpected {code!r}"
            if column == columns:
                row, column = row + 1, 0
            rows += [[] for _ in range(row + 1 - len(rows))]
            rows[row] += [" "] * (column + 1 - len(rows[row]))
            rows[row][column] = code
            column += 1
        rows += [[] for _ in range(row + 1 - len(rows))]
    return ["".join(characters).rstrip() for characters in rows]


@pytest.mark.parametrize("columns", [80, 130])
def test_on_a_terminal_every_task_has_a_bar_of_its_own(columns):
    pid, terminal = pty.fork()
    if not pid:
        try:
            fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            sys.stdout, sys.stderr = (open(d, "w", encoding="utf-8", closefd=False) for d in (1, 2))  # noqa: SIM115
            progress = Progress(1)
            show(progress, lambda: print("\a", end="", flush=True))
            print("next", flush=True)
        finally:
            os._exit(0)
    output = b""
    try:
        while data := os.read(terminal, 10_000):
            output += data
    except OSError:  # Linux says so at the end
        os.waitpid(pid, 0)
    os.close(terminal)
    lines = [
        "sop           4/4 ████████████████████ loss 0.2500  tau train (dropout on)  0.7500  validation -0.1250",
        "my-task       8/300 ▌                    loss 0.0625",
        "next",
        "",
    ]
    before_the_end, rest = output.decode().split("\a")
    finished, running = screen(before_the_end, columns)
    assert (finished, running.split()[0]) == (lines[0][: columns - 1], "my-task")
    assert screen(before_the_end + rest, columns) == [line[: columns - 1] for line in lines]  # cut, not wrapped
