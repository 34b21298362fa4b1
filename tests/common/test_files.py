import hashlib
import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.files import (
    InputError,
    check_output,
    describe,
    first_line,
    make_folder,
    printable,
    read_file,
    sha256,
    write_file,
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file", "a/b"), "a/b: No such file"),
        (PermissionError(13, "Permission denied", b"logs/events"), "logs/events: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("strange"), "strange"),
        (InputError("a\tb\n\x1b[31m\u2028\udcff\N{OHM SIGN}"), "a\\tb\\n\\x1b[31m\\u2028\\udcff\N{OHM SIGN}"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_an_error_is_described_in_one_line(error, line):
    assert describe(error) == line


def test_the_middle_of_a_long_text_is_left_out():
    assert printable("x" * 1000) == "x" * 1000
    for text in ("a" * 10**7 + "b" * 900, "a" * 501 + "b" * 500):
        assert printable(text) == "a" * 500 + " ... " + "b" * 400
    assert len(printable("\n" * 10**7)) == 905


def test_the_first_line_of_a_message_is_taken():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_a_file_is_read_whole(here):
    content = bytes(range(256)) * 10_000
    (here / "file").write_bytes(content)
    assert read_file("file") == content
    assert sha256("file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "use", [read_file, sha256, lambda path: write_file(path, b"new"), lambda p: check_output(p, [])]
)
def test_what_is_no_file_is_neither_read_nor_replaced(here, use):
    (here / "folder").mkdir()
    (here / "device").symlink_to("/dev/null")
    os.mkfifo("pipe")
    threading.Thread(target=(here / "pipe").write_bytes, args=(b"",), daemon=True).start()  # else a reader would wait
    for name, reason in (
        ("folder", "Is a directory"),
        ("device", "a pipe or a device: expected a file"),
        ("pipe", "a pipe or a device: expected a file"),
    ):
        with pytest.raises(OSError, match=f"{reason}: '{name}'"):
            use(name)
    assert (here / "pipe").is_fifo() and (here / "device").is_symlink()
    assert len(list(here.iterdir())) == 3


def test_a_file_that_fails_while_it_is_read_or_written_is_named(here, monkeypatch):
    with pytest.raises(OSError, match="Input/output error: '/proc/self/mem'"):
        read_file("/proc/self/mem")
    for name, reason in (("no/file", "No such file or directory"), ("x" * 300, "File name too long")):
        with pytest.raises(OSError, match=f"{reason}: '{name}'"):
            write_file(name, b"new")
    (here / "file").write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: 'file'"):
        write_file("file", b"new")
    assert (here / "file").read_bytes() == b"old"
    assert os.listdir() == ["file"]


@pytest.mark.parametrize(("function", "left"), [("fsync", b"old"), ("replace", b"old"), ("unlink", b"new")])
def test_a_killed_writer_leaves_the_old_file_or_the_new(here, function, left):
    write_file("file", b"old")

    pid = os.fork()
    if not pid:
        try:
            setattr(os, function, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            write_file("file", b"new" * 10**6)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert read_file("file")[:3] == left
    assert [name for name in os.listdir() if not re.fullmatch(r"\.file\..*\.part", name)] == ["file"]
    write_file("file", b"newer")  # what was left is in nobody's way
    assert read_file("file") == b"newer"


def test_readers_and_two_writers_see_whole_files_only():
    contents = [b"one" * 300_000, b"two" * 200_000]
    write_file("file", contents[0])
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(lambda c: [write_file("file", c) for _ in range(50)], content) for content in contents]
        while not all(writer.done() for writer in writers):
            assert read_file("file") in contents
    assert [writer.exception() for writer in writers] == [None, None]
    assert os.listdir() == ["file"]


def test_a_link_stays_and_its_target_is_replaced(here):
    (here / "other").mkdir()
    (here / "other" / "target").write_bytes(b"old")
    for link, target in (("link", "other/target"), ("dangling", "other/new")):
        (here / link).symlink_to(target)
        write_file(link, b"new")
        assert os.readlink(link) == target
        assert (here / target).read_bytes() == b"new"
    assert sorted(os.listdir("other")) == ["new", "target"]


def test_a_name_of_255_bytes_can_be_written(here):
    name = os.fsdecode(b"\xe2\x84\xa6" * 85)
    write_file(name, b"new")
    assert read_file(name) == b"new"


def test_an_output_may_not_be_an_input(here):
    (here / "input").write_text("")
    (here / "soft").symlink_to("input")
    (here / "hard").hardlink_to("input")
    (here / "new").symlink_to("later")
    for output, given in (
        ("input", "./input"),
        ("soft", "input"),
        ("input", "soft"),
        ("hard", "input"),
        ("new", "later"),
        ("later", here / "later"),
    ):
        with pytest.raises(InputError, match=f"{output}: would replace {given}, which this command reads or writes"):
            check_output(output, ["nowhere", given])
    check_output("a/b/c", ["input", "later"])
    check_output("hard", ["later"])
    (here / "far").symlink_to("c/d/e")
    check_output("far", ["input"])
    assert os.path.isdir("a/b") and os.path.isdir("c/d") and not os.path.exists("later")


def test_a_folder_is_made_or_what_is_in_its_way_is_named(here):
    make_folder("")
    make_folder("a/b")
    make_folder("a/b")
    (here / "file").write_text("")
    with pytest.raises(OSError, match="File name too long"):
        check_output("x" * 300, [])
    for use, path in ((make_folder, "{}"), (lambda path: check_output(path, []), "{}/file")):
        for name, reason in (("file", "File exists"), ("/proc/nowhere", "No such file or directory")):
            with pytest.raises(OSError, match=f"{reason}: .*{name}"):
                use(path.format(name))
