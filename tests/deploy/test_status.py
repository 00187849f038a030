import io

import pytest
from baton.v1 import common_pb2, control_pb2, worker_pb2
from rich.console import Console

from deploy.commands.status import COLUMNS, MEMBER_COLUMNS, PAIR_COLUMNS, hit_rate, print_status
from deploy.proto_dict import as_dict


def status_of(load: worker_pb2.WorkerLoad) -> control_pb2.GetStatusResponse:
    worker = common_pb2.WorkerEndpoint(worker=common_pb2.WorkerId(name="prefill-0", incarnation=1))
    hello = worker_pb2.WorkerHello(endpoint=worker, role_state=worker_pb2.RoleState(role=common_pb2.ROLE_PREFILL))
    status = control_pb2.WorkerStatus(hello=hello, load=load, silent_s=0.5, transfers=worker_pb2.TransferReport())
    return control_pb2.GetStatusResponse(model="demo", workers=[status])


def test_table_has_cached_blocks_and_what_came_from_caches_under_their_names() -> None:
    load = worker_pb2.WorkerLoad(
        blocks_free=7, blocks_cached=11, prefix_query_tokens=200, prefix_hit_tokens=50,
        prefix_tokens_fetched=48, prefix_fetches=5, prefix_fetches_failed=2,
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    print_status(status_of(load), console)
    *_, header, row = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    shown = dict(zip([column.split()[0] for column in COLUMNS], row.split(), strict=True))
    assert header.split()[0] == "worker"
    assert (shown["worker"], shown["free"], shown["cached"], shown["hit"]) == ("prefill-0", "7", "11", "25%")
    assert (shown["fetched"], shown["fetches"]) == ("48", "3/5")


@pytest.mark.parametrize(("query", "hit", "shown"), [(0, 0, "-"), (10, 0, "0%"), (3, 2, "67%"), (5, 5, "100%")])
def test_hit_rate_is_a_share_of_all_prompt_tokens(query: int, hit: int, shown: str) -> None:
    assert hit_rate(worker_pb2.WorkerLoad(prefix_query_tokens=query, prefix_hit_tokens=hit)) == shown


def test_json_has_every_count_as_a_number() -> None:
    (worker,) = as_dict(status_of(worker_pb2.WorkerLoad(prefix_hit_tokens=2**40)))["workers"]
    assert worker["load"]["prefix_hit_tokens"] == 2**40
    assert worker["load"]["host_blocks"] == 0
    assert set(worker["load"]) == {field.name for field in worker_pb2.WorkerLoad.DESCRIPTOR.fields}


def status_with(*pairs: worker_pb2.PairTransfers) -> control_pb2.GetStatusResponse:
    status = status_of(worker_pb2.WorkerLoad())
    status.workers[0].transfers.sent.extend(pairs)
    return status


def pair_to(name: str, **fields: object) -> worker_pb2.PairTransfers:
    return worker_pb2.PairTransfers(peer=common_pb2.WorkerId(name=name, incarnation=2**60), **fields)


def test_pairs_are_a_table_with_transport_speed_and_failures() -> None:
    used = pair_to(
        "decode-0",
        transport="nixl",
        path="cma",
        direction="push",
        num_handoffs=3,
        num_bytes=5 * 10**9,
        busy_s=2.0,
        exposed_s=0.5,
        num_retried=1,
        failures={"peer_lost": 2, "handoff_stalled": 1},
    )
    status = status_with(used, pair_to("decode-1"))
    target = status.workers.add(hello=worker_pb2.WorkerHello(endpoint=common_pb2.WorkerEndpoint(worker=used.peer)))
    target.transfers.received.add(peer=status.workers[0].hello.endpoint.worker, num_expired_leases=4)
    console = Console(file=io.StringIO(), width=200)
    print_status(status, console)
    *_, header, first, second = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert header.split() == list(PAIR_COLUMNS)
    assert first.rstrip().split(maxsplit=10) == [
        "prefill-0", "decode-0", "nixl/cma", "push", "3", "5000.0", "2.50", "75%", "1", "4",
        "handoff_stalled 1, peer_lost 2",
    ]  # fmt: skip
    assert second.split() == ["prefill-0", "decode-1", "-", "-", "0", "0.0", "-", "-", "0", "0", "-"]


def test_worker_without_pairs_has_no_table_of_them() -> None:
    console = Console(file=io.StringIO(), width=200)
    print_status(status_with(), console)
    assert "from" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_json_has_every_count_of_a_pair_as_a_number() -> None:
    (worker,) = as_dict(status_with(pair_to("decode-0", num_bytes=2**40, failures={"peer_lost": 2})))["workers"]
    (pair,) = worker["transfers"]["sent"]
    assert (pair["num_bytes"], pair["num_retried"], pair["failures"]) == (2**40, 0, {"peer_lost": 2})
    assert set(pair) == {field.name for field in worker_pb2.PairTransfers.DESCRIPTOR.fields}


def test_routers_and_workers_that_do_not_run_have_a_line_each() -> None:
    status = status_of(worker_pb2.WorkerLoad())
    runs, is_gone = control_pb2.MEMBER_STATE_RUNNING, control_pb2.MEMBER_STATE_GIVEN_UP
    router, worker = control_pb2.MEMBER_KIND_ROUTER, control_pb2.MEMBER_KIND_WORKER
    here = worker_pb2.RankProcess(node="n", pid=77)
    status.members.add(name="router-0", kind=router, state=runs, address="h:9", processes=[here], num_restarts=2)
    status.members.add(name="prefill-0", kind=worker, state=runs, address="h:8", processes=[here])
    status.members.add(name="decode-0", kind=worker, state=is_gone, num_restarts=7, reason="no file [x]")
    console = Console(file=io.StringIO(), width=200)
    print_status(status, console)
    *_, header, first, second = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert header.split()[0] == MEMBER_COLUMNS[0]
    assert first.split() == ["router-0", "running", "h:9", "77", "2", "-"]
    assert second.split() == ["decode-0", "given", "up", "-", "-", "7", "no", "file", "[x]"]
