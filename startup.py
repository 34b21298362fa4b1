"""Start-up of the scripts: from the first import on, Ctrl-C and a failed import end with a one-line message."""

import _signal as signal  # signal itself imports enum: milliseconds that Ctrl-C would find unprepared
import os
import sys
import time

ROOT = os.path.dirname(os.path.abspath(__file__))


def prepare():
    """Install the handlers; a script calls this before it imports anything that takes time."""
    signal.signal(signal.SIGINT, _interrupt)
    sys.excepthook, sys.unraisablehook = _uncaught, _unraisable
    for stream in ("stdin", "stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by the caller: the next file opened would be taken for it
            setattr(sys, stream, open(os.devnull, "r+"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a path that the terminal's encoding lacks
    try:
        os.getcwd()
    except OSError:
        end("the current folder was deleted: change to another", 2)


def end(message, status):
    """Say `message` in one line, and end the process at once."""
    text = f"{os.path.basename(sys.argv[0])}: {message}\n"
    os.write(2, text.encode(errors="backslashreplace"))
    os._exit(status)


def _interrupt(_, frame):
    """Raise KeyboardInterrupt for clean-up, or end at once while importing, when libraries do not survive it."""
    first = time.monotonic()

    def again(*_):  # during the clean-up, which takes a fraction of a second
        if time.monotonic() - first > 2:
            end("interrupted", 130)

    signal.signal(signal.SIGINT, again)
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            end("interrupted", 130)
        frame = frame.f_back
    raise KeyboardInterrupt


def _unraisable(info):
    if isinstance(info.exc_value, KeyboardInterrupt):  # raised where Python drops exceptions, as in a destructor
        end("interrupted", 130)
    sys.__unraisablehook__(info)


def _uncaught(kind, error, traceback):
    """Report an import, file or memory error in one line; print other exceptions with their traceback."""
    if isinstance(error, KeyboardInterrupt):
        end("interrupted", 130)
    if isinstance(error, ModuleNotFoundError):
        # env.sh's environment has what is needed; this Python may be another one.
        environment = os.path.realpath(os.path.join(ROOT, ".venv"))
        python = os.path.join(environment, "bin", "python")
        if os.path.exists(python) and os.path.realpath(sys.prefix) != environment:
            os.execv(python, [python, *sys.argv])
        end(f"{error}: bash train.sh installs what training needs; requirements-dev.txt lists the rest", 2)
    if isinstance(error, ImportError | OSError | MemoryError):
        end(" ".join((str(error) or kind.__name__).split())[:1000], 2)
    sys.__excepthook__(kind, error, traceback)
