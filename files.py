"""Read files, replace them atomically, and describe mistakes of the user in one line."""

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import secrets
from pathlib import Path


class InputError(ValueError):
    """A mistake in the user's input; the message is one line that says where, and what to do."""


def first_line(error):
    """First line of another library's error message, or the error's type where there is none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def printable(text):
    """`text` as one line of at most 1,000 characters: control characters escaped, a longer middle left out."""
    text = _shorten(str(text))  # escaping the longest texts would take seconds
    return _shorten("".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text))


def say(text):
    """Print `text` as one line, at once."""
    print(printable(text), flush=True)


def count(number, noun):
    """`number` and the noun, in the plural unless it is one: "1 task", "0 tasks"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _shorten(text):
    return text if len(text) <= 1000 else f"{text[:500]} ... {text[-400:]}"


def describe(error):
    """An InputError, OSError, ImportError or MemoryError in one line."""
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror)
    return printable(str(error) or type(error).__name__)


def sha256(path):
    """SHA-256 of the file `path`, hexadecimal; raises OSError."""
    return hashlib.sha256(read_file(path)).hexdigest()


def check_file(path):
    """Raise OSError where `path` is a folder, a pipe or a device: reading may never end, writing would replace it."""
    path = Path(path)
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "a pipe or a device: expected a file", str(path))


def read_file(path):
    """Bytes of the file `path`; raises OSError, which names it."""
    check_file(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_file(path, data):
    """Replace the file `path` atomically: a killed process leaves the old content or the new, never a part.

    A symbolic link stays, and the file that it points to is replaced. The data are written to a file beside it first,
    under a unique name and a lock. Unlocked files of that kind, left by killed processes, are removed. Raises OSError,
    which names `path`; the file is then unchanged.
    """
    check_file(path)
    target = Path(os.path.realpath(path))
    try:
        _remove_stale(target)
        descriptor, temporary = _create_locked(target)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _hidden(target):
    return f".{target.name[:50]}"  # at most 201 bytes of UTF-8; file systems allow 255 for the whole name


def _create_locked(target):
    """(descriptor, path) of a new locked file beside `target`."""
    while True:
        temporary = target.with_name(f"{_hidden(target)}.{secrets.token_hex(8)}.part")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks: nobody can lock it to remove it, either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if temporary.exists():
            return descriptor, temporary
        os.close(descriptor)  # another process took it for stale before it was locked


def _remove_stale(target):
    for left in target.parent.glob(f"{glob.escape(_hidden(target))}.*.part"):
        with contextlib.suppress(OSError), open(left, "rb") as file:  # OSError: locked, so in use, or gone already
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def make_folder(path):
    """Make a folder that can be written into; raises OSError."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot be written to", str(path))
