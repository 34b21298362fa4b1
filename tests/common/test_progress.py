"""What progress looks like in a file and on a terminal's screen."""

import contextlib
import fcntl
import math
import os
import pty
import re
import struct
import sys
import termios
from collections import defaultdict

import pytest
from common.progress import Progress

# (name, epoch, epochs, loss, train tau, validation tau)
REPORTS = [
    ("sop", 1, 4, 0.75, 0.25, 0.5),
    ("my-task", 1, 300, 0.5, None, None),
    ("sop", 4, 4, 0.25, 0.75, -0.125),
    ("my-task", 6, 300, 0.125, None, math.nan),
    ("my-task", 150, 300, 0.0625, -0.5, None),
]


@pytest.mark.parametrize(("interval", "shown"), [(1, range(5)), (3, (2, 3, 4))])
def test_without_a_terminal_a_line_is_written_every_few_epochs_and_for_the_last(tmp_path, monkeypatch, interval, shown):
    lines = [
        "sop        epoch    1/4  loss 0.7500  tau train (dropout on)  0.2500  validation  0.5000",
        "my-task    epoch    1/300  loss 0.5000",
        "sop        epoch    4/4  loss 0.2500  tau train (dropout on)  0.7500  validation -0.1250",
        "my-task    epoch    6/300  loss 0.1250  validation none, as all scores are equal",
        "my-task    epoch  150/300  loss 0.0625  tau train (dropout on) -0.5000",
    ]
    path, progress = tmp_path / "output", Progress(interval)
    with path.open("w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(sys, "stderr", output)
        for report in REPORTS:
            progress(*report)
        assert path.read_text().splitlines() == [lines[i] for i in shown]  # at once, not when the file is closed
    progress.close()


def screen(output):
    """Lines that a terminal shows, if none is wider than it."""
    rows, row, column = defaultdict(str), 0, 0
    for part in re.findall(r"\x1b\[A|[\r\n]|[^\x1b\r\n]+", output):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
        elif part == "\x1b[A":
            row -= 1
        else:
            rows[row] = rows[row][:column].ljust(column) + part + rows[row][column + len(part) :]
            column += len(part)
    return [rows[i].rstrip() for i in range(len(rows))]


@pytest.mark.parametrize("columns", [60, 80])
def test_on_a_terminal_every_task_has_a_bar_of_its_own(columns, monkeypatch):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = Progress(1)
        for report in REPORTS:
            progress(*report)
        print("\a", end="", flush=True)
        progress.close(["my-task"])  # which needed only half of its epochs
        print("next")
    output = b""
    with contextlib.suppress(OSError):  # so Linux says that nothing more will come
        while True:
            output += os.read(ours, 10_000)
    os.close(ours)
    lines = [
        "sop          4/4 ██████ loss 0.2500  tau train  0.7500  validation -0.1250",
        "my-task    150/300 ███    loss 0.0625  tau train -0.5000  validation    none",
    ]
    before_the_end, rest = output.decode().split("\a")
    lines = [line[: columns - 1] for line in lines]  # cut, not wrapped
    assert screen(before_the_end)[0] == lines[0]  # the last epoch is shown at once
    full = lines[1].replace("300 ███   ", "150 ██████")
    assert screen(before_the_end + rest) == [lines[0], full, "next"]
