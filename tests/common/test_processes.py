"""Jobs in processes: what each sends and returns, how each may fail, and that none is left behind."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from common.files import InputError
from common.processes import JobResult, cores, delayed_interrupt, one_thread, run_jobs


def test_work_on_one_thread_gives_the_others_back():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with pytest.raises(InputError), one_thread():
        assert torch.get_num_threads() == 1
        raise InputError
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == 3


def test_ctrl_c_is_delayed_once():
    with pytest.raises(KeyboardInterrupt), delayed_interrupt() as pressed:
        assert not pressed()
        signal.raise_signal(signal.SIGINT)
        assert pressed()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_of_the_main_thread_ctrl_c_is_not_delayed():
    def work():
        with delayed_interrupt() as pressed:
            return pressed(), signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor() as pool:
        assert pool.submit(work).result() == (False, signal.default_int_handler)


def test_cores_are_those_that_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    found = cores()
    os.sched_setaffinity(0, allowed)
    assert found == 1


def count(send, number):
    for i in range(number):
        send(i)
    return -number


def test_messages_and_results_come_in_the_order_of_each_job():
    jobs = [("a", count, (2,)), ("b", count, (0,)), ("c", count, (1,))]
    expected = [("a", 0), ("a", 1), ("a", JobResult(-2)), ("b", JobResult(0)), ("c", 0), ("c", JobResult(-1))]
    assert list(run_jobs(jobs, 1)) == expected
    assert sorted(run_jobs(jobs, 2), key=lambda pair: pair[0]) == expected


class Pid:
    """Becomes the id of the process that unpickles it."""

    def __reduce__(self):
        return os.getpid, ()


def test_a_job_for_another_device_gets_a_fresh_process():
    ((_, result),) = run_jobs([("a", getattr, ("nothing", Pid()))], 1, "cuda")
    assert isinstance(result.value, int)  # a fork would not unpickle what it is given


def fail(send, error):
    raise error


def test_a_job_that_fails_or_dies_says_why_and_takes_no_other_with_it(capfd):
    bug = "ZeroDivisionError: one: see the traceback above"
    jobs = [  # the key of each is how it should end
        ((None, "own\\nmistake"), fail, (InputError("own\nmistake"),)),
        ((None, "a: No such file"), fail, (FileNotFoundError(2, "No such file", "a"),)),
        ((None, bug), fail, (ZeroDivisionError("one"),)),
        ((None, bug), fail, (ZeroDivisionError("one"),)),
        ((None, "its process died, exit status -9"), lambda _: os.kill(os.getpid(), signal.SIGKILL), ()),
        ((None, None), lambda _: signal.raise_signal(signal.SIGINT), ()),  # Ctrl-C is for the parent
        ((1, None), lambda _: torch.get_num_threads(), ()),
    ]
    results = list(run_jobs(jobs, 2))
    assert len(results) == len(jobs)
    for expected, result in results:
        assert result[:2] == expected
    assert capfd.readouterr().err.count("Traceback") == 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.fixture
def jobs():
    """Three jobs, two at once: each says "met" when two have met, and waits forever."""
    barrier = multiprocessing.get_context("fork").Barrier(2, timeout=60)

    def meet(send):
        barrier.wait()
        send("met")
        signal.pause()

    return run_jobs([(i, meet, ()) for i in range(3)], 2)


def test_as_many_jobs_as_allowed_run_at_once_and_none_outlives_the_generator(jobs):
    assert [next(jobs)[1], next(jobs)[1]] == ["met"] * 2
    assert len(multiprocessing.active_children()) == 2
    jobs.close()
    assert multiprocessing.active_children() == []


def test_no_process_outlives_its_parent(jobs):
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            assert [next(jobs)[1], next(jobs)[1]] == ["met"] * 2
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == -signal.SIGKILL
    assert os.read(reading, 1) == b""  # the pipe has ended: all that could write into it are gone
    os.close(reading)
