"""Requests of which some worker has the beginning: where they go, and from whom the rest of it comes."""

import pytest

from core.blocks import BlockChain, root_name
from core.kv_events import KvSnapshot
from core.request import Assignment, PrefixSource, Role
from router.wire import StepReport
from tests.router.builders import MemoryFleet, RecordingLink, generation_request
from tests.router.dispatch.bench import Bench, make_bench, token

PROMPT = tuple(range(100, 300))
BLOCK_TOKENS = 4


def tell(fleet: MemoryFleet, link: RecordingLink, num_tokens: int, prompt: tuple[int, ...] = PROMPT) -> None:
    """The worker says that it has the beginning of a prompt."""
    chain = BlockChain(root_name(link.attached.fingerprint, ""), link.attached.block_tokens)
    chain.extend(prompt[:num_tokens])
    snapshot = KvSnapshot(0, tuple(chain.names), is_last=True)
    assert not fleet.prefixes.hear(link.worker, StepReport(kv_snapshot=snapshot))


def p(name: str = "p") -> RecordingLink:
    return RecordingLink(name, Role.PREFILL)


def d(name: str = "d") -> RecordingLink:
    return RecordingLink(name, Role.DECODE)


def served(bench: Bench, prompt: tuple[int, ...] = PROMPT) -> Assignment:
    bench.submit(generation_request("r", prompt))
    (work,) = {work for link in bench.links for work in link.assigned}
    return work


async def test_request_without_a_known_beginning_names_no_source() -> None:
    bench = make_bench(p(), d())
    tell(bench.fleet, bench.link("d"), 200, prompt=tuple(range(200)))
    assert served(bench).prefix_source is None
    assert bench.link("p").books()[0] == len(PROMPT)


async def test_prompt_goes_to_the_worker_that_has_its_beginning_and_only_the_rest_is_charged() -> None:
    bench = make_bench(p("p0"), p("p1"), d())
    tell(bench.fleet, bench.link("p1"), 150)
    work = served(bench)
    assert work.prefill == bench.link("p1").endpoint
    assert work.prefix_source is None
    assert bench.link("p1").books()[0] == 200 - 148


async def test_beginning_on_the_decode_worker_is_fetched_from_there() -> None:
    """The next turn of a chat: the prefill worker has the first prompt, the decode worker the answer too."""
    bench = make_bench(p(), d())
    tell(bench.fleet, bench.link("p"), 40)
    tell(bench.fleet, bench.link("d"), 190)
    source = served(bench).prefix_source
    assert source is not None
    assert (source.endpoint, source.num_tokens) == (bench.link("d").endpoint, 188)
    assert source.expected_s > 0
    assert bench.link("p").books()[0] == 200 - 188


async def test_sequence_goes_to_the_decode_worker_that_has_it() -> None:
    bench = make_bench(p(), d("d0"), d("d1"))
    tell(bench.fleet, bench.link("d1"), 190)
    assert served(bench).decode == bench.link("d1").endpoint


@pytest.mark.parametrize(
    "changes",
    [
        {"block_tokens": 8, "layout": (("block_tokens", 8),)},
        {"tensor_parallel_size": 2},
        {"block_bytes": 4096},
    ],
)
async def test_blocks_of_another_shape_are_not_fetched(changes: dict[str, object]) -> None:
    other = RecordingLink("d", Role.DECODE, **changes)
    bench = make_bench(p(), other)
    tell(bench.fleet, other, 192)
    assert served(bench).prefix_source is None


async def test_worker_that_failed_the_request_is_not_asked_for_its_beginning() -> None:
    bench = make_bench(p(), d("d0"), d("d1"))
    tell(bench.fleet, bench.link("d0"), 192)
    generation = bench.submit(generation_request("r", PROMPT))
    first = bench.link("p").assigned[-1]
    assert isinstance(first.prefix_source, PrefixSource)
    await bench.give_back(bench.link("p"))
    again = bench.link("p").assigned[-1]
    assert (again.decode, again.prefix_source) == (bench.link("d1").endpoint, None)
    generation.cancel()


async def test_answer_so_far_counts_as_prompt_when_a_request_is_placed_again() -> None:
    bench = make_bench(p(), d("d0"), d("d1"))
    bench.submit(generation_request("r", PROMPT, max_tokens=20))
    first = bench.link("p").assigned[-1]
    bench.report(bench.link("p"), token(first, 0))
    bench.report(bench.link("d0"), *(token(first, position) for position in range(1, 9)))
    tell(bench.fleet, bench.link("d1"), 208, prompt=(*PROMPT, *range(100, 109)))
    await bench.give_back(bench.link("d0"), "preempted")
    again = bench.link("p").assigned[-1]
    assert again.prefix_source is not None
    assert (again.prefix_source.num_tokens, again.decode) == (208, bench.link("d1").endpoint)


async def test_source_that_is_gone_is_not_asked() -> None:
    gone = d("d0")
    bench = make_bench(p(), gone, d("d1"))
    tell(bench.fleet, gone, 192)
    bench.lose(gone)
    assert served(bench).prefix_source is None
