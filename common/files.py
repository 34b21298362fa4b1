"""Read files, replace them atomically, and describe mistakes of the user in one line."""

import errno
import hashlib
import json
import logging
import os
import secrets
from pathlib import Path

log = logging.getLogger("architecture_ranking")  # messages for the user; the commands print them


class InputError(ValueError):
    """A mistake in the user's input; the message is one line that says where, and what to do."""


def first_line(error):
    """First line of another library's error message, or the error's type where there is none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def printable(text):
    """`text` as one line of about 1,000 characters: control characters escaped, a longer middle left out."""
    text = str(text)
    text = text if len(text) <= 1000 else f"{text[:500]} ... {text[-400:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def describe(error):
    """An exception in one line."""
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


KINDS = {  # what files begin with that are taken for JSON by mistake
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"PK": "a zip archive: unpack it",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file with git lfs pull",
    b"<": "HTML or XML, perhaps the page of an error: download the file again",
}


def is_number(value):
    """Whether a value of a JSON file is a finite number."""
    return type(value) in (int, float) and abs(value) < 1e300


def twice(names):
    """The first name in a list that occurs twice, or None."""
    return next((name for name in names if names.count(name) > 1), None)


def read_json(path):
    """Content of a JSON file; NaN and infinite numbers are read as such.

    Raises InputError, which names file and position, where it is none or repeats a key; OSError.
    """
    return parse_json(read_file(path), path)


def parse_json(data, path):
    """Content of JSON as bytes, as `read_json`; path: what messages call it."""

    def unique(pairs):
        entry = dict(pairs)
        if len(entry) != len(pairs):
            raise InputError(
                f"{path}: key '{twice([name for name, _ in pairs])}' occurs twice in one object: expected once"
            )
        return entry

    for start, kind in KINDS.items():
        if data.lstrip().startswith(start):
            raise InputError(f"{path}: not JSON, but {kind}")
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8: expected a JSON file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno} column {error.colno}: not JSON: {error.msg}") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # a number too long; nested too deeply
        raise InputError(f"{path}: not JSON that can be read: {first_line(error)}") from None


def write_json(path, content, indent=None):
    """Replace the file `path` by the content as JSON, as write_file does."""
    write_file(path, json.dumps(content, indent=indent).encode())


def write_file(path, data):
    """Replace the file `path` atomically: a killed process leaves the old content or the new, never a part.

    A symbolic link stays, and the file that it points to is replaced. The data are written to a hidden file beside it
    first, which a killed process may leave behind. Raises OSError, which names `path`; the file is then unchanged.
    """
    check_file(path)
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.part")
    try:
        try:
            with open(part, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
