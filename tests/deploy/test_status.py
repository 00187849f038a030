import io

import pytest
from baton.v1 import common_pb2, control_pb2, worker_pb2
from rich.console import Console

from deploy.commands.status import COLUMNS, hit_rate, print_status, status_as_dict


def status_of(load: worker_pb2.WorkerLoad) -> control_pb2.GetStatusResponse:
    worker = common_pb2.WorkerEndpoint(worker=common_pb2.WorkerId(name="prefill-0", incarnation=1))
    hello = worker_pb2.WorkerHello(endpoint=worker, role=common_pb2.ROLE_PREFILL)
    return control_pb2.GetStatusResponse(
        model="demo", workers=[control_pb2.WorkerStatus(hello=hello, load=load, silent_s=0.5)]
    )


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
    (worker,) = status_as_dict(status_of(worker_pb2.WorkerLoad(prefix_hit_tokens=2**40)))["workers"]
    assert worker["load"]["prefix_hit_tokens"] == 2**40
    assert worker["load"]["host_blocks"] == 0
    assert set(worker["load"]) == {field.name for field in worker_pb2.WorkerLoad.DESCRIPTOR.fields}
