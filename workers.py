"""Run jobs side by side in processes of their own, with messages from each."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import traceback
from typing import NamedTuple

from files import InputError, describe, printable


class Result(NamedTuple):
    """Result of a job: the value that its function returned, or a line that says why there is none."""

    value: object = None
    error: str | None = None
    traceback: str | None = None  # of an unexpected exception; run_jobs prints each traceback once


def cores():
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(jobs, processes, device="cpu"):
    """Run each job in a process of its own, `processes` at a time.

    jobs: [(key, function, arguments)]; the process calls function(send, *arguments), which may call send(message).
    Yields (key, message) for each message, and (key, Result) at the end of each job. A process that dies takes no other
    with it. No process outlives this generator, or the process that runs it, however that ends.
    """
    # A forked process has torch at once; CUDA cannot be used in one.
    context = multiprocessing.get_context("fork" if device == "cpu" else "spawn")
    if device != "cpu":
        multiprocessing.resource_tracker.ensure_running()  # which would unblock Ctrl-C while a worker starts
    # The parent alone keeps the writing end, so that the end of file tells the workers of its death.
    parent_alive, parent_end = context.Pipe(duplex=False)
    queue, running, shown = list(jobs), {}, set()
    try:
        while queue or running:
            while queue and len(running) < processes:
                key, function, arguments = queue.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                inherited = parent_end if device == "cpu" else None
                process = context.Process(target=_work, args=(theirs, parent_alive, inherited, function, arguments))
                # Ctrl-C reaches the whole process group, but the parent ends its workers. They inherit the mask.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    process.start()
                    running[ours] = key, process
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                theirs.close()
            for connection in multiprocessing.connection.wait(list(running)):
                key, process = running[connection]
                try:
                    message = connection.recv()
                except (EOFError, OSError):  # OSError: it died while sending
                    process.join()
                    message = Result(error=f"its process died, exit status {process.exitcode}")
                if isinstance(message, Result):
                    process.join()
                    connection.close()
                    del running[connection]
                    if message.traceback and message.traceback not in shown:
                        shown.add(message.traceback)
                        print(message.traceback, end="", file=sys.stderr)
                yield key, message
    finally:
        for _, process in running.values():
            process.kill()
        for _, process in running.values():
            process.join()
        parent_end.close()


def _work(connection, parent_alive, parent_end, function, arguments):
    if parent_end:
        parent_end.close()  # inherited by fork
    threading.Thread(target=_end_with_parent, args=(parent_alive,), daemon=True).start()
    try:
        result = Result(function(connection.send, *arguments))
    except (InputError, OSError, MemoryError) as error:
        result = Result(error=describe(error))
    except Exception as error:  # a bug, perhaps in a recipe that is being written
        line = f"{type(error).__name__}: {printable(error)}: see the traceback above"
        result = Result(error=line, traceback=traceback.format_exc())
    connection.send(result)


def _end_with_parent(parent_alive):
    parent_alive.poll(None)  # nothing is ever sent: it returns at the end of file
    os._exit(1)
