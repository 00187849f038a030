"""What each check says of values that are right, and of values that are not."""

import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from baton.v1 import common_pb2, control_pb2, worker_pb2

from deploy.config import ServeConfig
from deploy.doctor import machine, planned, running, state_store
from deploy.doctor.clocks import clock_finding
from deploy.doctor.finding import Finding, Verdict, ok
from router.state.address import RedisAddress
from router.state.redis_inspection import RedisServer
from tests.deploy.fake_router import worker_id
from tests.engine.checkpoints import write_tiny_moe

SERVER = RedisServer("6.2.5", 0.001, 0.0, 0, "noeviction")
GIB = machine.GIB


def test_finding_has_a_remedy_just_when_something_is_wrong() -> None:
    with pytest.raises(AssertionError, match="a remedy"):
        Finding("c", "s", Verdict.WARN, "d")
    with pytest.raises(AssertionError, match="a remedy"):
        Finding("c", "s", Verdict.OK, "d", "do")


def test_this_machine_passes_its_own_checks_of_python_and_packages() -> None:
    assert machine.python_finding().verdict is Verdict.OK
    found = {finding.subject: finding.verdict for finding in machine.version_findings()}
    assert found.keys() == {"torch", "ray", "grpcio", "protobuf", "nixl"}
    assert set(found.values()) == {Verdict.OK}


def test_other_and_missing_versions_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {**machine.installed_versions(), "torch": "1.0.0"}
    del installed["nixl"]
    monkeypatch.setattr(machine, "installed_versions", lambda: installed)
    found = {finding.subject: finding for finding in machine.version_findings()}
    assert (found["torch"].verdict, found["nixl"].verdict) == (Verdict.WARN, Verdict.FAIL)
    assert found["torch"].detail.startswith("1.0.0; tested with ==2.13")
    assert found["nixl"].remedy.startswith('pip install "nixl')


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (machine.shared_memory_finding(64 << 20), Verdict.FAIL),
        (machine.shared_memory_finding(1 << 30), Verdict.OK),
        (machine.open_files_finding(1024, 4096), Verdict.WARN),
        (machine.open_files_finding(4096, 4096), Verdict.OK),
        (machine.open_files_finding(-1, -1), Verdict.OK),
        (machine.memory_copy_finding("0"), Verdict.OK),
        (machine.memory_copy_finding("2"), Verdict.WARN),
        (clock_finding("w", 0.9), Verdict.OK),
        (clock_finding("w", -1.1), Verdict.WARN),
        (planned.memory_finding(3 * GIB, 2 * GIB), Verdict.WARN),
        (planned.memory_finding(2 * GIB, 2 * GIB), Verdict.OK),
    ],
)
def test_limits(finding: Finding, verdict: Verdict) -> None:
    assert finding.verdict is verdict


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"version": "6.0.16"}, "redis"),
        ({"round_trip_s": 0.02}, "redis latency"),
        ({"max_memory_bytes": 1, "eviction": "allkeys-lru"}, "redis memory"),
        ({"clock_skew_s": 5.0}, "clock"),
    ],
)
def test_each_defect_of_a_redis_server_is_one_line(changes: dict[str, object], check: str) -> None:
    assert all(finding.verdict is Verdict.OK for finding in state_store.server_findings("r", SERVER))
    found = state_store.server_findings("r", dataclasses.replace(SERVER, **changes))
    assert [finding.check for finding in found if finding.verdict is not Verdict.OK] == [check]


def worker(name: str, role: int, host: str = "10.0.0.1", **hello: object) -> control_pb2.WorkerStatus:
    endpoint = common_pb2.WorkerEndpoint(worker=worker_id(name), address=f"{host}:7")
    points = [worker_pb2.CostPoint(number=1, seconds=1e-3), worker_pb2.CostPoint(number=2, seconds=2e-3)]
    fields = {
        "endpoint": endpoint,
        "role_state": worker_pb2.RoleState(role=role),
        "model_fingerprint": "abc",
        "layout": common_pb2.KvLayout(num_layers=2, kv_heads=1, block_tokens=16, head_dim=8, dtype="bfloat16"),
        "block_bytes": 64, "num_blocks": 8, "max_num_seqs": 4, "max_model_len": 64,
        "topology": common_pb2.ShardTopology(tensor_parallel_size=1, expert_parallel_size=1),
        "cost_model": worker_pb2.CostModel(chunk_tokens=8, prefill=points, decode=points),
        "versions": {"torch": "2.13.0"},
    }  # fmt: skip
    return control_pb2.WorkerStatus(hello=worker_pb2.WorkerHello(**{**fields, **hello}))


P0 = worker("p0", common_pb2.ROLE_PREFILL)
D0 = worker("d0", common_pb2.ROLE_DECODE)
M0 = worker("m0", common_pb2.ROLE_MIXED)


def test_pairs_are_those_that_roles_have_kv_go_between() -> None:
    status = control_pb2.GetStatusResponse(workers=[P0, D0, M0])
    names = {running.pair_name(*pair) for pair in running.pairs(status)}
    assert names == {"p0 to d0", "p0 to m0", "m0 to d0"}


def test_workers_that_agree_are_one_line_and_each_difference_is_another() -> None:
    (finding,) = running.agreement_findings(control_pb2.GetStatusResponse(model="m", workers=[P0, D0]))
    assert (finding.verdict, finding.detail) == (Verdict.OK, "fingerprint abc, KV in bfloat16, on all workers")
    other = worker("d1", common_pb2.ROLE_DECODE, model_fingerprint="xyz")
    found = list(running.agreement_findings(control_pb2.GetStatusResponse(model="m", workers=[P0, D0, other])))
    assert [finding.verdict for finding in found] == [Verdict.FAIL, Verdict.FAIL]
    assert found[0].detail == "p0@1 and d1@1: model fingerprint abc against xyz"


def test_worker_with_another_version_than_the_router_is_named() -> None:
    status = control_pb2.GetStatusResponse(workers=[P0, D0], versions={"torch": "2.13.0"})
    assert all(finding.verdict is Verdict.OK for finding in running.version_findings(status))
    status.workers[1].hello.versions["torch"] = "2.12.1"
    _, finding = running.version_findings(status)
    assert (finding.subject, finding.detail) == ("d0", "torch 2.12.1 (router: 2.13.0)")


def probe(**changes: object) -> control_pb2.ProbePairResponse:
    fields = {
        "num_tokens": 512, "ttft_s": 0.2, "second_token_s": 0.25, "num_bytes": 10**7, "busy_s": 0.01,
        "transport": "nixl", "path": "cma", "direction": "push",
    }  # fmt: skip
    return control_pb2.ProbePairResponse(**{**fields, **changes})


def test_transfer_is_told_with_way_speed_and_times() -> None:
    finding = running.transfer_finding(P0, D0, probe())
    assert finding.verdict is Verdict.OK
    assert finding.detail == (
        "16 tokens per block, 1 rank(s) bfloat16; nixl/cma (push), 10.0 MB at 1.00 GB/s; first token 200 ms, second "
        "250 ms"
    )


@pytest.mark.parametrize("changes", [{"path": "tcp"}, {"busy_s": 0.3}, {"num_bytes": 0}])
def test_transfer_that_is_slow_takes_a_detour_or_was_not_counted_is_warned_of(changes: dict[str, object]) -> None:
    assert running.transfer_finding(P0, D0, probe(**changes)).verdict is Verdict.WARN


def test_tcp_between_two_hosts_is_no_detour() -> None:
    there = worker("d1", common_pb2.ROLE_DECODE, host="10.0.0.2")
    assert running.transfer_finding(P0, there, probe(path="tcp")).verdict is Verdict.OK


def plan(model_dir: Path, **settings: Any) -> dict[str, Finding]:  # noqa: ANN401 - of any field
    config = ServeConfig(model=model_dir, **{"kernels": "torch", "port": 0, **settings})
    return {finding.check: finding for finding in planned.plan_findings(config)}


def test_plan_without_weights_is_checked_in_all_else(tmp_path: Path) -> None:
    found = plan(tmp_path)
    assert (found["model"].verdict, found["model"].detail) == (Verdict.FAIL, "no weights")
    assert {check: found[check].verdict for check in ("ports", "devices", "kernels")} == dict.fromkeys(
        ("ports", "devices", "kernels"), Verdict.OK
    )


def test_ports_of_every_planned_router_are_checked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        metrics_port = taken.getsockname()[1] - 1
        found = plan(tmp_path, routers=2, state="redis", metrics_port=metrics_port, metrics_host="127.0.0.1")
    assert found["ports"].verdict is Verdict.FAIL
    assert "--metrics-port" in found["ports"].detail


def test_settings_that_routers_cannot_have_are_no_failure_of_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_OPERATOR_KEY", "short")
    found = plan(tmp_path)
    assert found["settings"].verdict is Verdict.FAIL
    assert "BATON_OPERATOR_KEY" in found["settings"].detail
    assert "ports" not in found


def test_machine_is_not_judged_for_workers_that_run_elsewhere(tmp_path: Path) -> None:
    write_tiny_moe(tmp_path)
    found = plan(tmp_path, ray_address="10.0.0.1:6379", max_model_len=64)
    assert not {"devices", "memory"} & found.keys()


def test_planned_state_is_that_which_serve_would_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look(address: RedisAddress) -> Iterator[Finding]:
        asked.append(str(address))
        yield ok("redis", str(address), "version 7")

    monkeypatch.setattr(state_store, "store_findings", look)
    file = tmp_path / "state"
    file.write_text("redis://of-file:7/1", encoding="utf-8")
    plan(tmp_path, state_file=file)
    monkeypatch.setenv("BATON_STATE", "redis://of-variable:7/1")
    plan(tmp_path, routers=2)
    assert asked == ["redis://of-file:7/1", "redis://of-variable:7/1"]
    monkeypatch.setenv("BATON_STATE", "nothing")
    found = plan(tmp_path)
    assert found["state"].verdict is Verdict.FAIL
    assert "settings" not in found
    monkeypatch.setattr(planned, "redis_program", lambda: "redis-server")
    found = plan(tmp_path, state="redis")
    assert (found["state"].verdict, len(asked)) == (Verdict.OK, 2)


def test_memory_that_a_plan_needs_grows_with_its_workers_and_pools(tmp_path: Path) -> None:
    write_tiny_moe(tmp_path)
    small = planned.needed_bytes(ServeConfig(model=tmp_path, kv_cache_gb=1.0), tmp_path)
    larger = planned.needed_bytes(ServeConfig(model=tmp_path, kv_cache_gb=2.0), tmp_path)
    more = planned.needed_bytes(ServeConfig(model=tmp_path, kv_cache_gb=1.0, decode=2), tmp_path)
    assert larger - small == 2 * GIB
    assert more - small > GIB
