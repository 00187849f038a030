"""Who waits, and until when."""

from concurrent.futures import ThreadPoolExecutor

from deploy.newest_call import NewestCall

WAIT_S = 20.0


def test_many_calls_hold_one_thread_and_the_newest_lasts_until_the_end() -> None:
    call = NewestCall()
    with ThreadPoolExecutor(2) as threads:  # two of them: were the callers before not let go, the fourth never came
        calls = [threads.submit(call.wait) for _ in range(4)]
        for before in calls[:-1]:
            before.result(WAIT_S)
        assert not calls[-1].done()
        call.end()
        calls[-1].result(WAIT_S)


def test_call_after_the_end_does_not_wait() -> None:
    call = NewestCall()
    call.end()
    call.end()
    call.wait()
