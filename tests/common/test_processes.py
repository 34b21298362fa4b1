import multiprocessing
import os
import signal
import threading

import pytest
import torch
from helpers import wait_for

from common.files import InputError
from common.processes import JobResult, cores, delayed_interrupt, one_thread, run_jobs


def children(pid=None):
    """Process ids of the children of a process, zombies too."""
    pid = pid or os.getpid()
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return list(map(int, file.read().split()))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_work_on_one_thread_gives_the_others_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with pytest.raises(InputError), one_thread():
            assert torch.get_num_threads() == 1
            raise InputError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_ctrl_c_is_delayed_once():
    before = signal.getsignal(signal.SIGINT)
    with delayed_interrupt() as pressed:
        assert not pressed()
        interrupt()
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(InputError), delayed_interrupt():
        raise InputError
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_of_the_main_thread_ctrl_c_is_not_delayed():
    answers, before = [], signal.getsignal(signal.SIGINT)

    def work():
        with delayed_interrupt() as pressed:
            answers.append((pressed(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [(False, before)]


def test_cores_are_those_that_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert cores() == len(allowed)


def count(send, number):
    for i in range(number):
        send(i)
    return -number


def test_messages_and_results_come_in_the_order_of_each_job():
    before = len(os.listdir("/proc/self/fd")), children()
    jobs = [("a", count, (3,)), ("b", count, (0,)), ("c", count, (2,))]
    found = {key: [] for key, *_ in jobs}
    for key, message in run_jobs(jobs, 2):
        found[key].append(message)
    assert found == {"a": [0, 1, 2, JobResult(-3)], "b": [JobResult(0)], "c": [0, 1, JobResult(-2)]}
    assert list(run_jobs(jobs, 1)) == [(key, message) for key in "abc" for message in found[key]]  # one by one
    assert list(run_jobs([], 2)) == []
    assert (len(os.listdir("/proc/self/fd")), children()) == before


def test_as_many_jobs_as_allowed_run_at_once():
    barrier = multiprocessing.get_context("fork").Barrier(3, timeout=60)
    jobs = [(i, lambda _: barrier.wait(), ()) for i in range(6)]
    results = [result for _, result in run_jobs(jobs, 3)]
    assert sorted(result.value for result in results) == [0, 0, 1, 1, 2, 2]


class Pid:
    """Becomes the id of the process that unpickles it."""

    def __reduce__(self):
        return os.getpid, ()


def test_a_job_for_another_device_gets_a_fresh_process():
    ((key, result),) = run_jobs([("a", getattr, ("nothing", Pid()))], 1, "cuda")
    assert (key, result.error) == ("a", None)
    assert result.value != os.getpid()  # a fork would not unpickle what it is given, and return it as it is


def fails(send, error):
    raise error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("own\nmistake"), "own\\nmistake"),
        (FileNotFoundError(2, "No such file", "a"), "a: No such file"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_mistake_ends_its_own_job_only(error, line, capfd):
    results = dict(run_jobs([("a", fails, (error,)), ("b", count, (0,))], 2))
    assert results == {"a": JobResult(error=line), "b": JobResult(0)}
    assert capfd.readouterr().err == ""


def divide(send, number):
    return 1 / number


def test_a_bug_is_shown_once_with_its_traceback(capfd):
    results = dict(run_jobs([(key, divide, (number,)) for key, number in zip("abc", (0, 2, 0), strict=True)], 2))
    assert results["b"] == JobResult(0.5)
    for key in "ac":
        assert results[key].error == "ZeroDivisionError: division by zero: see the traceback above"
    stderr = capfd.readouterr().err
    assert stderr.count("Traceback") == 1 and "1 / number" in stderr


def die(send, number):
    send("alive")
    os.kill(os.getpid(), number)
    return "survived"


def test_a_process_that_dies_takes_no_other_with_it():
    found = list(run_jobs([("a", die, (signal.SIGKILL,)), ("b", count, (1,)), ("c", count, (1,))], 1))
    assert found[:2] == [("a", "alive"), ("a", JobResult(error="its process died, exit status -9"))]
    assert found[2:] == [("b", 0), ("b", JobResult(-1)), ("c", 0), ("c", JobResult(-1))]


def test_ctrl_c_does_not_reach_a_job():
    assert list(run_jobs([("a", die, (signal.SIGINT,))], 1)) == [("a", "alive"), ("a", JobResult("survived"))]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_process_that_cannot_start_is_said(monkeypatch):
    def fork(real=os.fork):
        starts.append(None)
        if len(starts) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real()

    starts = []
    monkeypatch.setattr(os, "fork", fork)
    results = dict(run_jobs([(key, count, (0,)) for key in "abc"], 1))
    assert results["b"] == JobResult(error="its process cannot start: Resource temporarily unavailable")
    assert results["a"] == results["c"] == JobResult(0)


def wait_forever(send):
    send(os.getpid())
    threading.Event().wait()


def test_no_process_outlives_the_generator():
    before, jobs = children(), run_jobs([(i, wait_forever, ()) for i in range(3)], 2)
    started = [next(jobs)[1], next(jobs)[1]]
    assert set(children()) == {*before, *started}
    jobs.close()
    assert children() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_its_parent(number):
    parent = os.fork()
    if not parent:
        try:
            list(run_jobs([(i, wait_forever, ()) for i in range(2)], 2))
        finally:
            os._exit(1)
    wait_for(lambda: len(children(parent)) == 2)
    workers = children(parent)
    os.kill(parent, number)
    os.waitpid(parent, 0)
    try:
        wait_for(lambda: not any(map(alive, workers)), 30)
    finally:
        for pid in filter(alive, workers):
            os.kill(pid, signal.SIGKILL)
