"""Errors in one line, and files that are read or replaced as a whole, however a writer ends."""

import hashlib
import os
import resource
import signal
from pathlib import Path

import pytest

from common.files import InputError, describe, first_line, printable, read_file, sha256, write_file
from common.paths import check_output


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file", "a/b"), "a/b: No such file"),
        (PermissionError(13, "Permission denied", b"logs/events"), "logs/events: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("strange"), "strange"),
        (InputError("a\tb\n\x1b[31m\u2028\udcff\N{OHM SIGN}"), "a\\tb\\n\\x1b[31m\\u2028\\udcff\N{OHM SIGN}"),
    ],
)
def test_an_error_is_described_in_one_line(error, line):
    assert describe(error) == line


def test_a_long_message_loses_its_middle_and_one_of_several_lines_all_but_the_first():
    assert printable("x" * 1000) == "x" * 1000
    assert printable("a" * 501 + "b" * 500) == "a" * 500 + " ... " + "b" * 400
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_a_file_is_written_and_read_whole_even_under_the_longest_name():
    content, name = bytes(range(256)) * 10_000, "\N{OHM SIGN}" * 85  # 255 bytes
    write_file(name, content)
    assert read_file(name) == content
    assert sha256(name) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("use", [read_file, lambda path: write_file(path, b""), check_output])
def test_a_folder_or_a_pipe_is_neither_read_nor_replaced(use):
    os.mkdir("folder")
    os.mkfifo("pipe")
    for name, reason in (("folder", "Is a directory"), ("pipe", "a pipe or a device: expected a file")):
        with pytest.raises(OSError, match=f"{reason}: '{name}'"):
            use(name)
    assert Path("pipe").is_fifo() and len(os.listdir()) == 2


def test_a_file_that_fails_while_it_is_read_or_written_is_named():
    with pytest.raises(OSError, match="Input/output error: '/proc/self/mem'"):
        read_file("/proc/self/mem")
    with pytest.raises(OSError, match="No such file or directory: 'no/file'"):
        write_file("no/file", b"new")
    write_file("file", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))  # as a full disk
    try:
        with pytest.raises(OSError, match="File too large: 'file'"):
            write_file("file", b"new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (read_file("file"), os.listdir()) == (b"old", ["file"])


@pytest.mark.parametrize(("function", "left"), [("fsync", b"old"), ("replace", b"old"), ("unlink", b"new")])
def test_a_killed_writer_leaves_the_old_file_or_the_new(function, left):
    write_file("file", b"old")
    pid = os.fork()
    if not pid:
        try:
            owner = Path if function == "unlink" else os
            setattr(owner, function, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            write_file("file", b"new")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert read_file("file") == left
    write_file("file", b"newer")  # a hidden file that was left is in nobody's way
    assert [name for name in os.listdir() if not name.startswith(".")] == ["file"]


def test_a_link_stays_and_its_target_is_replaced():
    os.mkdir("other")
    os.symlink("other/target", "link")
    for content in (b"made", b"replaced"):
        write_file("link", content)
        assert Path("other/target").read_bytes() == content
    assert os.readlink("link") == "other/target"


def test_an_outputs_folder_is_made_unless_it_would_replace_an_input_or_cannot_be():
    Path("input").touch()
    os.link("input", "hard")
    os.symlink("input", "soft")
    os.symlink("later/file", "dangling")
    for output, given in (("input", "./input"), ("soft", "input"), ("hard", "input"), ("dangling", "later/file")):
        with pytest.raises(InputError, match=f"{output}: would replace {given}, which this command reads or writes"):
            check_output(output, ["nowhere", given])
    check_output("a/b/file", ["input"])
    check_output("dangling", ["input"])
    assert os.path.isdir("a/b") and os.listdir("later") == []
    for path, reason in (
        ("input/file", "File exists: .*input'"),
        ("/proc/no/file", "No such file or directory: '/proc/no'"),
    ):
        with pytest.raises(OSError, match=reason):
            check_output(path)
