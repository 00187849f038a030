import asyncio
import threading
from collections.abc import Callable
from functools import partial

from worker.mailbox import Mailbox


def receive_values(mailbox: Mailbox, into: list[int], timeout_s: float = 0.0) -> list[int]:
    for call in mailbox.receive(timeout_s):
        call()
    received, into[:] = list(into), []
    return received


def test_receive_has_all_calls_in_the_order_of_posting() -> None:
    mailbox, values = Mailbox(), list[int]()
    for i in range(5):
        mailbox.post(partial(values.append, i))
    assert receive_values(mailbox, values) == [0, 1, 2, 3, 4]
    assert receive_values(mailbox, values) == []


def test_receive_without_wait_returns_empty_at_once() -> None:
    assert Mailbox().receive(0.0) == []


def test_receive_wakes_up_for_a_call_from_another_thread() -> None:
    mailbox, values = Mailbox(), list[int]()
    thread = threading.Thread(target=lambda: mailbox.post(partial(values.append, 1)))
    thread.start()
    assert receive_values(mailbox, values, timeout_s=60.0) == [1]
    thread.join()


def test_call_posted_by_a_call_is_left_for_the_next_round() -> None:
    mailbox, values = Mailbox(), list[int]()
    mailbox.post(lambda: mailbox.post(partial(values.append, 2)))
    assert receive_values(mailbox, values) == []
    assert receive_values(mailbox, values) == [2]


def test_calls_of_many_threads_all_arrive_each_thread_s_in_order() -> None:
    mailbox, num_threads, num_calls = Mailbox(), 4, 200
    seen: list[tuple[int, int]] = []

    def post(name: int) -> None:
        for i in range(num_calls):
            mailbox.post(partial(seen.append, (name, i)))

    threads = [threading.Thread(target=post, args=(name,)) for name in range(num_threads)]
    for thread in threads:
        thread.start()
    while len(seen) < num_threads * num_calls:
        for call in mailbox.receive(60.0):
            call()
    for thread in threads:
        thread.join()
    for name in range(num_threads):
        assert [i for who, i in seen if who == name] == list(range(num_calls))


async def test_answer_of_the_loop_comes_back_to_who_asked() -> None:
    mailbox = Mailbox()

    def double(number: int, reply: Callable[[int], None]) -> None:
        reply(2 * number)

    asking = asyncio.create_task(mailbox.ask(partial(double, 21)))
    gone = asyncio.create_task(mailbox.ask(partial(double, 1)))
    await asyncio.sleep(0)
    gone.cancel()  # its answer comes all the same, and disturbs nobody
    for call in mailbox.receive(0.0):
        await asyncio.to_thread(call)
    assert await asking == 42
