import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from baton.v1 import common_pb2, control_pb2
from typer.testing import CliRunner

from core.errors import UnavailableError
from deploy.cli import app
from deploy.doctor import machine, state_store
from deploy.doctor.finding import Finding, ok
from router.state.address import RedisAddress
from tests.deploy.doctor.test_findings import probe, worker
from tests.deploy.fake_router import FakeRouter, running_router


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRouter]:
    """A router with a worker of each role, on a machine of which nothing is known."""

    def one_finding() -> Iterator[Finding]:
        yield ok("python", "this machine", "3")

    monkeypatch.setattr(machine, "machine_findings", one_finding)
    with running_router() as fake:
        workers = [worker("p0", common_pb2.ROLE_PREFILL), worker("d0", common_pb2.ROLE_DECODE)]
        status = control_pb2.GetStatusResponse(model="demo", workers=workers, versions={"torch": "2.13.0"})
        status.unix_s = 0.0
        fake.answers |= {"GetStatus": status, "ProbePair": probe()}
        yield fake


def test_every_pair_is_probed_and_everything_found_is_in_the_file(router: FakeRouter, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    result = CliRunner().invoke(app, ["doctor", "cluster", "--grpc", router.address, "--json", str(file)])
    assert result.exit_code == 0
    probes = [request for request in router.requests if isinstance(request, control_pb2.ProbePairRequest)]
    assert [(request.prefill, request.decode) for request in probes] == [("p0", "d0")]
    found = json.loads(file.read_text(encoding="utf-8"))["findings"]
    assert {finding["check"] for finding in found} == {"python", "ready", "clock", "version", "model", "pair"}
    assert [finding["subject"] for finding in found if finding["verdict"] == "warn"] == ["router"]  # its clock
    assert "8 ok, 1 to look at, 0 wrong" in result.stdout


def test_redis_database_that_routers_share_is_checked_when_it_is_named(
    router: FakeRouter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(address: RedisAddress) -> Iterator[Finding]:
        yield ok("redis", str(address), "version 7")

    monkeypatch.setattr(state_store, "store_findings", look)
    monkeypatch.delenv("BATON_STATE", raising=False)
    command = ["doctor", "cluster", "--no-probe", "--grpc", router.address]
    file = tmp_path / "state"
    file.write_text("redis://:secret@of-file:7/1", encoding="utf-8")
    by_flag = CliRunner().invoke(app, [*command, "--state", "redis://of-flag"])
    by_file = CliRunner().invoke(app, [*command, "--state-file", str(file)])
    by_variable = CliRunner().invoke(app, command, env={"BATON_STATE": "rediss://of-variable"})
    own, none = CliRunner().invoke(app, [*command, "--state", "redis"]), CliRunner().invoke(app, command)
    assert "ok    redis redis://of-flag:6379/0: version 7" in by_flag.stdout
    assert "ok    redis redis://of-file:7/1: version 7" in by_file.stdout
    assert "ok    redis rediss://of-variable:6379/0: version 7" in by_variable.stdout
    assert "redis" not in own.stdout + none.stdout


def test_what_does_not_work_is_exit_code_1_with_a_remedy(router: FakeRouter) -> None:
    router.answers["GetStatus"].unready_reason = "no decode worker is attached yet"  # type: ignore[attr-defined]
    result = CliRunner().invoke(app, ["doctor", "cluster", "--grpc", router.address, "--no-probe"])
    assert result.exit_code == 1
    assert "fail  ready demo: no decode worker is attached yet\n      see the workers' logs" in result.stdout
    assert not any(isinstance(request, control_pb2.ProbePairRequest) for request in router.requests)


def test_pair_that_cannot_be_probed_is_a_line_and_not_the_end(router: FakeRouter) -> None:
    router.refusals["ProbePair"] = UnavailableError("handoff_failed: no way")
    result = CliRunner().invoke(app, ["doctor", "cluster", "--grpc", router.address])
    assert result.exit_code == 1
    assert "fail  pair p0 to d0: handoff_failed: no way" in result.stdout
