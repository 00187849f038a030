"""What only the collective transport can get wrong: threads, strangers, and peers that say something wrong."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing

import psutil
import pytest
import torch

from core.errors import HandoffError, LostConnectionError
from core.ids import WorkerId
from kvtransfer.collective_transport import CALLER
from kvtransfer.move import Direction
from kvtransfer.pair_calls import call
from kvtransfer.pair_group import PairGroup, make_gloo_device
from kvtransfer.run_stream import RunStream
from kvtransfer.runs import Region, RunTable
from kvtransfer.transfer_header import HEADER_BYTES, TransferHeader
from tests.kvtransfer.fleets import NUM_BLOCKS, STAGING_BYTES, Fleet, fleet_process, whole_blocks

P, D, OTHER = WorkerId("prefill-0", 7), WorkerId("decode-0", 3), WorkerId("decode-1", 3)
HOST = "127.0.0.1"
BIG_BLOCKS, BIG_BLOCK_BYTES = range(64), 65_536
TIMEOUT_S = 60.0


@pytest.fixture
def fleet() -> Fleet:
    """P and D, not connected."""
    fleet = Fleet("collective")
    fleet.start(P)
    fleet.start(D)
    yield fleet
    fleet.close()
    assert our_threads() == []


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kv-")]


def rogue_group(fleet: Fleet, *, calls_itself: WorkerId) -> PairGroup:
    """A process that has D's address and secret and makes up the rest."""
    theirs = json.loads(fleet.metadata(D))
    store = call(calls_itself, D, theirs["address"], theirs["secret"])
    return PairGroup(D, CALLER, store, make_gloo_device(HOST), torch.device("cpu"))


def test_threads_of_a_pair_end_with_it(fleet: Fleet) -> None:
    fleet.connect(P, D)
    fleet.copy(P, D, Direction.WRITE, [0], [0])
    assert sorted(our_threads()) == ["kv-calls", "kv-calls", f"kv-send-{D}", f"kv-serve-{P}"]
    fleet.remove(P, D)
    fleet.remove(D, P)
    assert our_threads() == ["kv-calls", "kv-calls"]


def test_nothing_listens_at_other_addresses_than_the_host() -> None:
    def listening() -> set[tuple[str, int]]:
        sockets = psutil.Process().net_connections("tcp")
        return {tuple(found.laddr) for found in sockets if found.status == psutil.CONN_LISTEN}

    before = listening()
    fleet = Fleet("collective")
    fleet.start(P)
    assert {ip for ip, _ in listening() - before} == {HOST}
    fleet.close()


def test_who_is_not_expected_is_turned_away(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(HandoffError, match="worker decode-0@3 did not join"):
        fleet.add(P, D, fleet.metadata(D))
    assert "worker prefill-0@7 calls, but its handshake is not known here" in caplog.text
    assert fleet.connect(P, D) == "gloo"


def test_add_peer_that_has_ended_is_refused(fleet: Fleet) -> None:
    metadata = fleet.metadata(D)
    fleet.stop(D)
    with pytest.raises(HandoffError, match=r"worker decode-0@3 cannot be reached at '127\.0\.0\.1:"):
        fleet.add(P, D, metadata)


def test_peer_with_memory_of_another_kind_is_refused_with_both(fleet: Fleet) -> None:
    theirs = {**json.loads(fleet.metadata(D)), "device": "cuda"}
    with pytest.raises(HandoffError, match="decode-0@3 has its KV on 'cuda', this one on 'cpu'"):
        fleet.add(P, D, json.dumps(theirs).encode())


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": 7},
        {"region_bytes": [64]},
        {"region_bytes": 64},
        {"secret": None},
        {"address": "nowhere"},
        {"address": "127.0.0.1:99999"},
    ],
)
def test_metadata_with_nonsense_in_it_is_refused_by_name(fleet: Fleet, wrong: dict[str, object]) -> None:
    theirs = {**json.loads(fleet.metadata(D)), **wrong}
    with pytest.raises(HandoffError, match="worker decode-0@3"):
        fleet.add(P, D, json.dumps(theirs).encode())


def test_metadata_that_is_nested_without_end_is_refused_by_name(fleet: Fleet) -> None:
    with pytest.raises(HandoffError, match="worker decode-0@3"):
        fleet.add(P, D, b"[" * 1_000_000)


WHOLE = whole_blocks()
OUTSIDE = [
    whole_blocks(NUM_BLOCKS + 1),
    RunTable(Region.STAGING, 1, 0, 1, 0, 0, STAGING_BYTES + 1),
    RunTable(Region.POOL, 2, -512, 1, 0, 512, 64),
]


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize(
    ("table", "num_runs", "ids"),
    [
        *((table, 1, None) for table in OUTSIDE),
        (WHOLE, 1, [NUM_BLOCKS]),
        (WHOLE, 1, [-1]),
        (WHOLE, 0, None),
        (WHOLE, 1 << 31, None),
    ],
)
def test_wrong_header_ends_the_connection_and_hurts_nobody(
    fleet: Fleet, direction: Direction, table: RunTable, num_runs: int, ids: list[int] | None
) -> None:
    fleet.expect(D, OTHER, fleet.metadata(P).replace(str(P).encode(), str(OTHER).encode()))
    before = fleet.pool(D)
    with closing(rogue_group(fleet, calls_itself=OTHER)) as group:
        group.send(TransferHeader(direction, table, num_runs).pack())
        if ids is not None:
            group.send(torch.tensor(ids, dtype=torch.int32))
        with pytest.raises(LostConnectionError):
            group.receive(torch.empty(1, dtype=torch.uint8))
    assert torch.equal(fleet.pool(D), before)
    fleet.connect(P, D)
    fleet.copy(P, D, Direction.WRITE, [1], [2])
    assert torch.equal(fleet.pool(D)[2], fleet.pool(P)[1])


@pytest.mark.parametrize("position", [0, 4, 5])
def test_header_of_nonsense_ends_the_connection(fleet: Fleet, position: int) -> None:
    """Of another protocol, direction or region."""
    fleet.expect(D, P, fleet.metadata(P))
    packed = TransferHeader(Direction.WRITE, WHOLE, 1).pack()
    packed[position] = 255
    assert len(packed) == HEADER_BYTES
    with closing(rogue_group(fleet, calls_itself=P)) as group:
        group.send(packed)
        with pytest.raises(LostConnectionError):
            group.receive(torch.empty(1, dtype=torch.uint8))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("end", ["source", "target"])
def test_defect_at_one_end_ends_the_connection_at_both(
    fleet: Fleet, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread is gone; who waits for it would wait for ever."""

    def defect(*_arguments: object) -> None:
        raise KeyError("defect")

    fleet.connect(P, D)
    with monkeypatch.context() as patched:
        patched.setattr(RunStream, "send" if end == "source" else "receive", defect)
        with pytest.raises(HandoffError, match="decode-0@3"):
            fleet.copy(P, D, Direction.WRITE, [1], [2])
        for thread in threading.enumerate():
            if thread.name in (f"kv-send-{D}", f"kv-serve-{P}"):
                thread.join(TIMEOUT_S)
        assert our_threads() == ["kv-calls", "kv-calls"]


def test_second_call_of_a_peer_ends_its_first(fleet: Fleet) -> None:
    fleet.connect(P, D)
    fleet.copy(P, D, Direction.WRITE, [1], [2])
    with closing(rogue_group(fleet, calls_itself=P)), pytest.raises(LostConnectionError):
        fleet.copy(P, D, Direction.WRITE, [1], [2])


def test_peer_that_stands_still_is_removed_and_closed_without_it(fleet: Fleet) -> None:
    """A stopped process takes nothing in, and does not end its connection."""
    with fleet_process("collective") as target:
        target.start(OTHER)
        target.expect(OTHER, P, fleet.metadata(P))
        fleet.add(P, OTHER, target.metadata(OTHER))
        os.kill(target.process.pid, signal.SIGSTOP)
        every_block = list(range(NUM_BLOCKS))
        fleet.post(P, OTHER, Direction.WRITE, every_block * 4096, every_block * 4096)  # 32 MiB
        fleet.post(P, OTHER, Direction.READ, [0], [0])
        fleet.states(100)
        fleet.remove(P, OTHER)
        assert our_threads() == ["kv-calls", "kv-calls"]


def test_nothing_lands_after_a_source_was_removed() -> None:
    """In the middle of its transfers, which then fail at the source."""
    with fleet_process("collective") as source:
        fleet = Fleet("collective")
        source.start(P, len(BIG_BLOCKS), BIG_BLOCK_BYTES)
        fleet.start(D, len(BIG_BLOCKS), BIG_BLOCK_BYTES)
        fleet.expect(D, P, source.metadata(P))
        source.add(P, D, fleet.metadata(D))
        before = fleet.pool(D)
        answer = source.wish("copy_until_error", P, D, Direction.WRITE, BIG_BLOCKS, BIG_BLOCKS)
        while torch.equal(fleet.pool(D), before):
            pass
        fleet.remove(D, P)
        fleet.overwrite(D)
        expected = fleet.pool(D)
        with pytest.raises(LostConnectionError, match="decode-0@3"):
            answer()
        assert torch.equal(fleet.pool(D), expected)
        fleet.close()


FORGETFUL = """
from core.ids import WorkerId
from kvtransfer.move import Direction
from tests.kvtransfer.fleets import Fleet

fleet = Fleet("collective")
one, other = WorkerId("one", 1), WorkerId("other", 1)
fleet.start(one)
fleet.start(other)
fleet.connect(one, other)
fleet.copy(one, other, Direction.WRITE, [1], [2])
print("copied", flush=True)
"""


def test_process_that_closes_nothing_ends_all_the_same() -> None:
    command = [sys.executable, "-c", FORGETFUL]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (ended.returncode, ended.stdout) == (0, "copied\n"), ended.stderr
