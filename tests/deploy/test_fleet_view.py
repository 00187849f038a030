import io

import pytest
from baton.v1 import common_pb2, control_pb2
from rich.console import Console, RenderableType

from core.errors import UnreachableError
from deploy.commands.top import one_frame, watch_fleet
from deploy.commands.top_frame import bar, frame, kv_use
from deploy.fleet_view import FleetView, Look, Rates
from tests.deploy.fake_router import change, worker_role, worker_status


def look(at_s: float, *workers: control_pb2.WorkerStatus, **fields: object) -> Look:
    return Look(
        at_s=at_s,
        status=control_pb2.GetStatusResponse(model="demo", workers=workers),
        roles=control_pb2.GetRolesResponse(**fields),
        changes=control_pb2.ListRoleChangesResponse(changes=[change(message="decode-0 is slow")]),
    )


def text_of(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_rates_are_of_the_time_between_two_looks() -> None:
    view = FleetView(look(10.0, worker_status("decode-0", prompt_tokens_computed=100, decode_tokens_computed=7)))
    assert view.rates("decode-0") is None
    view.take(look(12.0, worker_status("decode-0", prompt_tokens_computed=300, decode_tokens_computed=8)))
    assert view.rates("decode-0") == Rates(prompt_tokens_per_s=100.0, decode_tokens_per_s=0.5)


def test_worker_that_started_anew_has_no_rates_and_no_events() -> None:
    view = FleetView(look(0.0, worker_status("decode-0", decode_tokens_computed=100, migrations_sent=3)))
    view.take(look(1.0, worker_status("decode-0", incarnation=2, migrations_sent=5), worker_status("decode-1")))
    assert (view.rates("decode-0"), view.rates("decode-1"), list(view.events)) == (None, None, [])


def test_migrations_are_told_once_each() -> None:
    view = FleetView(look(0.0, worker_status("decode-0"), worker_status("decode-1", migrations_received=1)))
    moved = (worker_status("decode-0", migrations_sent=2, migrations_failed=1),
             worker_status("decode-1", migrations_received=3))  # fmt: skip
    view.take(look(1.0, *moved))
    view.take(look(2.0, *moved))
    assert [(event.worker, event.text, event.is_bad) for event in view.events] == [
        ("decode-0", "2 running sequence(s) went on elsewhere", False),
        ("decode-0", "1 migration(s) failed; the sequences stayed", True),
        ("decode-1", "2 running sequence(s) came from elsewhere", False),
    ]


def test_frame_has_workers_by_the_role_they_have_now() -> None:
    workers = (
        worker_status("decode-0", blocks_total=10, blocks_free=2, blocks_cached=3, running_sequences=4),
        worker_status("decode-1"),
        worker_status("prefill-0", common_pb2.ROLE_PREFILL),
    )
    states = [worker_role("decode-1", common_pb2.ROLE_PREFILL, is_pinned=True)]
    view = FleetView(look(0.0, *workers, workers=states, alarms=["decode-1 does [nothing]"], is_auto=True))
    shown = text_of(frame(view)).splitlines()
    assert shown[0] == "model demo: ready; 0 request(s) active"
    assert shown[2] == "alarm: decode-1 does [nothing]"
    first, second, third = (line.split() for line in shown[4:7])
    assert first[:3] == ["prefill", "decode-1", "pinned"]
    assert second[:3] == ["prefill", "prefill-0", "-"]
    assert third[:3] == ["decode", "decode-0", "-"]
    assert "50%" in third
    assert shown[-1].endswith(
        "decode-0: decode -> prefill verified; 0 moved, 0 placed again, 0 ended there; decode-0 is slow"
    )


def test_kv_use_is_what_is_neither_free_nor_cached() -> None:
    assert kv_use(worker_status("decode-0", blocks_total=10, blocks_free=2, blocks_cached=3)) == 0.5
    assert kv_use(worker_status("decode-0")) == 0.0
    assert str(bar(0.5)) == "█" * 10 + "░" * 10
    assert str(bar(1.0)) == "█" * 20


def test_one_frame_has_rates() -> None:
    looks = iter(
        [look(0.0, worker_status("decode-0")), look(1.0, worker_status("decode-0", decode_tokens_computed=1234))]
    )
    assert "1,234" in text_of(one_frame(lambda: next(looks), 0.0))


def test_router_that_goes_away_and_comes_back_is_shown_so() -> None:
    def answers() -> Look:
        answer = next(script)
        if isinstance(answer, Exception):
            raise answer
        return answer

    away = UnreachableError("the router at x does not answer")
    script = iter([away, look(0.0), away, look(1.0)])
    frames: list[str] = []
    with pytest.raises(StopIteration):  # the script has ended
        watch_fleet(answers, 0.0, lambda drawn: frames.append(text_of(drawn)))
    assert [frame_text.splitlines()[0] for frame_text in frames] == [
        "the router at x does not answer; trying again",
        "model demo: ready; 0 request(s) active",
        "the router at x does not answer; trying again",
        "model demo: ready; 0 request(s) active",
    ]
    assert "model demo" in frames[2]
    assert "model demo" not in frames[0]
