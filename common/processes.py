"""Jobs side by side in processes of their own, computing on one thread, and Ctrl-C that waits for a safe place."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
from typing import NamedTuple

import torch

from common.files import InputError, describe, printable


@contextlib.contextmanager
def one_thread():
    """Compute on one thread: small networks need no more, and the last bits depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def delayed_interrupt():
    """Delay Ctrl-C: yields a function that returns True once it was pressed. A second one is not delayed."""
    pressed = threading.Event()

    def note(*arguments):
        if pressed.is_set() and callable(before):
            before(*arguments)
        pressed.set()

    in_main = threading.current_thread() is threading.main_thread()  # signals are the main thread's
    before = signal.signal(signal.SIGINT, note) if in_main else None
    try:
        yield pressed.is_set
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)


class JobResult(NamedTuple):
    """Result of a job: the value that its function returned, or a line that says why there is none."""

    value: object = None
    error: str | None = None
    traceback: str | None = None  # of an unexpected exception


def cores():
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(jobs, processes, device="cpu"):
    """Run each job in a process of its own, `processes` at a time.

    jobs: [(key, function, arguments)]; the process calls function(send, *arguments), which may call send(message).
    Yields (key, message) for each message, and (key, JobResult) at the end of each job. A process that dies or cannot
    start takes no other with it. No process outlives this generator, or the process that runs it, however that ends.
    In a daemonic process, which may have none, the jobs run one after the other.
    """
    if multiprocessing.current_process().daemon:
        for key, function, arguments in jobs:
            messages = []
            result = _call(function, messages.append, arguments)
            yield from ((key, message) for message in (*messages, result))
        return
    # A forked process has torch at once; CUDA cannot be used in one.
    forked = str(device).startswith("cpu")
    context = multiprocessing.get_context("fork" if forked else "spawn")
    # The parent alone keeps the writing end, so that the end of file tells the workers of its death.
    parent_alive, parent_end = context.Pipe(duplex=False)
    inherited = parent_end if forked else None
    queue, running, shown = list(jobs), {}, set()
    try:
        while queue or running:
            while queue and len(running) < processes:
                key, *job = queue.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(theirs, parent_alive, inherited, *job))
                try:
                    _start(process)
                    running[ours] = key, process
                except OSError as error:
                    yield key, JobResult(error=f"its process cannot start: {describe(error)}")
                theirs.close()
            for connection in multiprocessing.connection.wait(list(running)):
                key, process = running[connection]
                message = _receive(connection, process)
                if isinstance(message, JobResult):
                    process.join()
                    connection.close()
                    del running[connection]
                    if message.traceback and message.traceback not in shown:  # the same of eight tasks is shown once
                        shown.add(message.traceback)
                        print(message.traceback, end="", file=sys.stderr)
                yield key, message
    finally:
        for _, process in running.values():
            process.kill()
        for _, process in running.values():
            process.join()
        parent_end.close()


def _start(process):
    # Ctrl-C reaches the whole process group, but the parent ends its workers. They inherit the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _receive(connection, process):
    try:
        return connection.recv()
    except (EOFError, OSError):  # OSError: it died while sending
        process.join()
        return JobResult(error=f"its process died, exit status {process.exitcode}")


def _work(connection, parent_alive, parent_end, function, arguments):
    torch.set_num_threads(1)  # a forked child has no copies of the parent's thread pool and would wait for it forever
    if parent_end:
        parent_end.close()  # inherited by fork
    threading.Thread(target=_end_with_parent, args=(parent_alive,), daemon=True).start()
    connection.send(_call(function, connection.send, arguments))


def _call(function, send, arguments):
    try:
        return JobResult(function(send, *arguments))
    except (InputError, OSError, MemoryError) as error:
        return JobResult(error=describe(error))
    except Exception as error:  # a bug, perhaps in a recipe that is being written
        line = f"{type(error).__name__}: {printable(error)}: see the traceback above"
        return JobResult(error=line, traceback=traceback.format_exc())


def _end_with_parent(parent_alive):
    parent_alive.poll(None)  # nothing is ever sent: it returns at the end of file
    os._exit(1)
