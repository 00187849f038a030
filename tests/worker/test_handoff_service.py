"""Two workers in this process, over real gRPC and NIXL; then what peers may say that is wrong."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc
import pytest
import torch
from baton.v1 import handoff_pb2, handoff_pb2_grpc

from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment, Role
from engine.kv.accounting import BlockState
from tests.oracles import greedy_tokens
from tests.worker.loops import greedy
from tests.worker.routers import TIMEOUT_S, attached, is_free, look, wait_until
from worker import link_wire, wire
from worker.negotiation import Introduction
from worker.process import WorkerProcess
from worker.read_order import ReadOrder

SOURCE = WorkerId("prefill-7", 1)
BEGIN_TIMEOUT_S = 0.2  # until a wish for blocks is withdrawn


def prompt_of(num_tokens: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 160, (num_tokens,), generator=generator).tolist()


def work_for(prefill: WorkerEndpoint, decode: WorkerEndpoint, handoff_id: str, num_tokens: int = 6) -> Assignment:
    """One that shares no KV with others."""
    work = greedy(handoff_id, prompt_of(num_tokens), 8)
    return replace(work, prefill=prefill, decode=decode, cache_salt=handoff_id)


# --- whole handoffs


def serve(prefill: WorkerProcess, decode: WorkerProcess, works: list[Assignment]) -> dict[str, list[int]]:
    """Assigns everything to both and collects the answers, as a router does."""
    with attached(prefill) as p, attached(decode) as d:
        for work in works:
            d.assign(work)
            p.assign(work)
        answers = {}
        for work in works:
            (first,) = p.wait_tokens(work.handoff_id, until_end=False)
            events = [first]
            if first.finish_reason is None:
                events += d.wait_tokens(work.handoff_id, until_end=True)
            assert [event.position for event in events] == list(range(len(events)))
            answers[work.handoff_id] = [event.token_id for event in events]
            if len(events) == 1:
                d.cancel(work.handoff_id)
        wait_until(prefill, is_free)
        wait_until(decode, is_free)
    return answers


def num_moved(prefill: WorkerProcess, decode: WorkerProcess) -> tuple[int, int]:
    """Handoffs that the one has sent, and that the other has received."""
    sent = look(prefill, lambda p: p.loop.load().handoffs_sent)
    return sent, look(decode, lambda d: d.loop.load().handoffs_received)


def test_answer_across_two_workers_is_that_of_transformers(prefill: WorkerProcess, decode: WorkerProcess) -> None:
    before = decode.engine.num_prompt_tokens, prefill.engine.num_decode_tokens
    num_before = num_moved(prefill, decode)
    works = [
        replace(
            greedy(f"whole-{i}", prompt_of(num_tokens, i), num_new),
            prefill=prefill.endpoint,
            decode=decode.endpoint,
        )
        for i, (num_tokens, num_new) in enumerate([(50, 12), (1, 5), (4, 9), (90, 3), (17, 1), (33, 16), (8, 2)])
    ]
    answers = serve(prefill, decode, works)
    for work in works:
        expected = greedy_tokens(prefill.config.model_dir, work.prompt, work.max_new_tokens)
        assert answers[work.handoff_id] == expected, work
    assert (decode.engine.num_prompt_tokens, prefill.engine.num_decode_tokens) == before
    num_after = num_moved(prefill, decode)
    assert num_after[0] - num_before[0] == num_after[1] - num_before[1] == 6  # the seventh ends with its first token


def test_second_prompt_of_a_tenant_is_neither_computed_nor_moved_again(
    prefill: WorkerProcess, decode: WorkerProcess
) -> None:
    loads = [look(prefill, lambda p: p.loop.load())]
    for name in ("first-of-tenant", "second-of-tenant"):
        work = replace(work_for(prefill.endpoint, decode.endpoint, name, 41), cache_salt="tenant")
        expected = greedy_tokens(prefill.config.model_dir, work.prompt, 8)
        assert serve(prefill, decode, [work])[name] == expected
        wait_until(prefill, is_free)
        loads.append(look(prefill, lambda p: p.loop.load()))
    computed = [b.prompt_tokens_computed - a.prompt_tokens_computed for a, b in itertools.pairwise(loads)]
    moved = [b.handoff_bytes - a.handoff_bytes for a, b in itertools.pairwise(loads)]
    assert computed == [41, 1]
    assert moved == [11 * prefill.engine.pool.layout.block_bytes, prefill.engine.pool.layout.block_bytes]


def test_restarted_target_is_connected_anew(
    prefill: WorkerProcess, start_worker: Callable[[str, Role], WorkerProcess]
) -> None:
    for attempt in range(2):
        target = start_worker("decode-restarted", Role.DECODE)
        work = work_for(prefill.endpoint, target.endpoint, f"restart-{attempt}")
        answers = serve(prefill, target, [work])
        assert answers[work.handoff_id] == greedy_tokens(prefill.config.model_dir, work.prompt, 8)
    assert [w.name for w in prefill._peers._connected].count("decode-restarted") == 1


def test_dead_incarnation_of_the_target_gives_the_work_back(prefill: WorkerProcess, decode: WorkerProcess) -> None:
    """The address is alive, but another process answers there."""
    me = decode.endpoint
    dead = WorkerEndpoint(WorkerId(me.worker.name, me.worker.incarnation - 1), me.address)
    with attached(prefill) as router:
        router.assign(work_for(prefill.endpoint, dead, "dead"))
        work = router.wait_returned("dead")
    assert (work.code, work.retryable) == ("peer_lost", True)
    assert str(dead.worker) in work.message
    wait_until(prefill, is_free)


def test_target_that_has_cancelled_gives_the_work_back(prefill: WorkerProcess, decode: WorkerProcess) -> None:
    work = work_for(prefill.endpoint, decode.endpoint, "cancelled-there")
    with attached(prefill) as p, attached(decode) as d:
        d.assign(work)
        d.cancel(work.handoff_id)
        wait_until(decode, lambda worker: work.handoff_id in worker.decode._book.ended)
        p.assign(work)
        returned = p.wait_returned(work.handoff_id)
    assert (returned.code, returned.retryable) == ("handoff_failed", True)
    assert "has ended here" in returned.message
    wait_until(prefill, is_free)
    wait_until(decode, is_free)


def test_router_cancels_under_way_both_workers_are_free_again(prefill: WorkerProcess, decode: WorkerProcess) -> None:
    works = [
        replace(greedy(f"under-way-{i}", prompt_of(60, i), 100), prefill=prefill.endpoint, decode=decode.endpoint)
        for i in range(6)
    ]
    with attached(prefill) as p, attached(decode) as d:
        for work in works:
            d.assign(work)
            p.assign(work)
        for i, work in enumerate(works):
            if i % 2:
                p.wait_tokens(work.handoff_id, until_end=False)
            d.cancel(work.handoff_id)
            p.cancel(work.handoff_id)
        wait_until(prefill, is_free)
        wait_until(decode, is_free)


# --- a peer's words, one by one


@pytest.fixture
def peer(decode: WorkerProcess) -> Iterator[handoff_pb2_grpc.HandoffServiceStub]:
    with grpc.insecure_channel(decode.endpoint.address) as channel:
        yield handoff_pb2_grpc.HandoffServiceStub(channel)
    wait_until(decode, is_free)


@pytest.fixture
def links(decode: WorkerProcess) -> Iterator[handoff_pb2_grpc.LinkServiceStub]:
    with grpc.insecure_channel(decode.endpoint.address) as channel:
        yield handoff_pb2_grpc.LinkServiceStub(channel)
    wait_until(decode, is_free)


def connect_request(decode: WorkerProcess, source: WorkerId = SOURCE) -> handoff_pb2.ConnectPeerRequest:
    mover = decode._mover
    me = Introduction(source, decode.worker, decode.engine.fingerprint, mover.geometry, mover.offers())
    return link_wire.introduction_to_proto(me)


def refused(
    call: Callable[..., object], request: object, timeout_s: float = TIMEOUT_S
) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=timeout_s)
    return caught.value.code(), caught.value.details()


def reserve(decode: WorkerProcess, peer: handoff_pb2_grpc.HandoffServiceStub, handoff_id: str) -> list[int]:
    """Assigned by a router that stays as long as the caller's block, then begun."""
    look(decode, lambda d: d.decode.assign("router-x", work_for(d.endpoint, d.endpoint, handoff_id)))
    begin = wire.begin_to_proto(handoff_id, SOURCE, decode.worker)
    return list(peer.BeginHandoff(begin, timeout=TIMEOUT_S).block_ids)


def test_connect_tells_how_this_worker_is_reached(
    decode: WorkerProcess, links: handoff_pb2_grpc.LinkServiceStub
) -> None:
    agreed = link_wire.agreement_from_proto(links.ConnectPeer(connect_request(decode), timeout=TIMEOUT_S))
    assert agreed.geometry == decode._mover.geometry
    assert agreed.geometry.num_blocks == 256
    name, metadata = next(iter(decode._mover.offers().items()))
    assert (agreed.transport, list(agreed.metadata)) == (name, list(metadata))


def test_connect_of_what_cannot_be_a_geometry_is_refused(
    decode: WorkerProcess, links: handoff_pb2_grpc.LinkServiceStub
) -> None:
    request = connect_request(decode)
    request.geometry.layout.dtype = "int3"
    code, details = refused(links.ConnectPeer, request)
    assert code is grpc.StatusCode.ABORTED
    assert "there is no division of KV like this" in details
    assert "int3" in details


def test_words_for_another_incarnation_are_refused(
    decode: WorkerProcess, peer: handoff_pb2_grpc.HandoffServiceStub, links: handoff_pb2_grpc.LinkServiceStub
) -> None:
    other = WorkerId(decode.worker.name, decode.worker.incarnation + 1)
    connect = connect_request(decode)
    connect.target.CopyFrom(wire.worker_id_to_proto(other))
    read = ReadOrder("1", "h", WorkerEndpoint(SOURCE, "127.0.0.1:1"), other, (1,), (1,), skip_tokens=0)
    calls = [
        (links.ConnectPeer, connect),
        (links.ReadBlocks, link_wire.read_order_to_proto(read)),
        (peer.BeginHandoff, wire.begin_to_proto("h", SOURCE, other)),
        (peer.RenewLeases, wire.renewal_to_proto(SOURCE, other, ["h"])),
        (peer.CommitHandoff, wire.commit_to_proto("h", SOURCE, other, token_ids=[1], num_blocks=1)),
    ]
    for call, request in calls:
        code, details = refused(call, request)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert f"{other} is gone; this is {decode.worker}" in details


def test_begin_that_meets_its_deadline_is_withdrawn(
    decode: WorkerProcess, peer: handoff_pb2_grpc.HandoffServiceStub
) -> None:
    """No router has assigned it, so it waits; afterwards nothing is left of it and it cannot come back."""
    begin = wire.begin_to_proto("withdrawn", SOURCE, decode.worker)
    code, _ = refused(peer.BeginHandoff, begin, BEGIN_TIMEOUT_S)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(decode, lambda d: "withdrawn" in d.decode._book.ended)
    assert look(decode, is_free)
    look(decode, lambda d: d.decode.assign("router-x", work_for(d.endpoint, d.endpoint, "withdrawn")))
    assert look(decode, is_free)
    code, details = refused(peer.BeginHandoff, begin)
    assert code is grpc.StatusCode.CANCELLED
    assert "has ended here" in details


def test_begin_is_answered_with_blocks_and_abort_frees_them(
    decode: WorkerProcess, peer: handoff_pb2_grpc.HandoffServiceStub
) -> None:
    block_ids = reserve(decode, peer, "aborted")
    assert len(block_ids) == 2
    assert look(decode, lambda d: {d.engine.pool.blocks.state_of(b) for b in block_ids}) == {BlockState.LEASED}
    elsewhere = wire.abort_to_proto("aborted", SOURCE, WorkerId(decode.worker.name, 1))
    peer.AbortHandoff(elsewhere, timeout=TIMEOUT_S)
    assert not look(decode, is_free)
    for _ in range(2):
        peer.AbortHandoff(wire.abort_to_proto("aborted", SOURCE, decode.worker), timeout=TIMEOUT_S)
    assert look(decode, is_free)


def test_commit_without_all_blocks_is_refused(
    decode: WorkerProcess, peer: handoff_pb2_grpc.HandoffServiceStub
) -> None:
    reserve(decode, peer, "incomplete")
    request = wire.commit_to_proto("incomplete", SOURCE, decode.worker, token_ids=[1], num_blocks=1)
    code, details = refused(peer.CommitHandoff, request)
    assert code is grpc.StatusCode.ABORTED
    assert "2 blocks expected, 1 came" in details


def test_commit_of_unknown_is_refused(decode: WorkerProcess, peer: handoff_pb2_grpc.HandoffServiceStub) -> None:
    request = wire.commit_to_proto("nobody", SOURCE, decode.worker, token_ids=[1], num_blocks=1)
    code, details = refused(peer.CommitHandoff, request)
    assert code is grpc.StatusCode.CANCELLED
    assert "not wanted here" in details


def test_words_of_another_source_leave_a_handoff_alone(
    decode: WorkerProcess, peer: handoff_pb2_grpc.HandoffServiceStub
) -> None:
    reserve(decode, peer, "guarded")
    other = WorkerId(SOURCE.name, SOURCE.incarnation + 1)
    commit = wire.commit_to_proto("guarded", other, decode.worker, token_ids=[1], num_blocks=2)
    code, details = refused(peer.CommitHandoff, commit)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"from {SOURCE}, not from {other}" in details
    peer.AbortHandoff(wire.abort_to_proto("guarded", other, decode.worker), timeout=TIMEOUT_S)
    assert not look(decode, is_free)
    for source, lost in ((other, ["guarded"]), (SOURCE, [])):
        renewal = wire.renewal_to_proto(source, decode.worker, ["guarded"])
        assert list(peer.RenewLeases(renewal, timeout=TIMEOUT_S).lost_handoff_ids) == lost
    peer.AbortHandoff(wire.abort_to_proto("guarded", SOURCE, decode.worker), timeout=TIMEOUT_S)
    assert look(decode, is_free)


def test_newer_incarnation_of_a_source_connects_what_the_dead_one_held_is_freed(
    decode: WorkerProcess, peer: handoff_pb2_grpc.HandoffServiceStub, links: handoff_pb2_grpc.LinkServiceStub
) -> None:
    reserve(decode, peer, "orphan")
    links.ConnectPeer(connect_request(decode, WorkerId(SOURCE.name, SOURCE.incarnation + 1)), timeout=TIMEOUT_S)
    wait_until(decode, is_free)
