"""The page in a real browser, one process for all tests."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.events import WorkerLoad
from core.ids import WorkerId
from core.request import FinishReason, Role
from core.transfers import PairReport, PairStats, TransferReport
from router.roles.changes import CONTROLLER, OperatorAction, RoleStage
from router.roles.decision import Decision
from tests.router.auth.keys import add_key
from tests.router.builders import generation_request
from tests.router.dashboard.browser import CHROMIUM, Browser, Page, run_browser
from tests.router.dashboard.fakes import KEY, DashboardWorld, members
from tests.router.dashboard.server import DashboardServer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")

LIVE = "document.querySelector('#link').dataset.link === 'live'"
COUNT_GLIDES = """
    window.glides = 0;
    const animate = Element.prototype.animate;
    Element.prototype.animate = function (...args) { window.glides += 1; return animate.apply(this, args); };
"""
LOW_CONTRASTS = """(() => {
    const parse = (color) => {
        const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
        return { rgb: [r, g, b], a };
    };
    const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const light = (rgb) => rgb.map((c) => linear(c / 255))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const color = parse(getComputedStyle(e).backgroundColor);
            if (color.a > 0.99) return color.rgb;
        }
        return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
    };
    const low = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const e = node.parentElement;
        if (!node.data.trim() || !e.checkVisibility() || e.closest("script, title, .unseen, .skip")) continue;
        const style = getComputedStyle(e);
        const lights = [light(parse(e.closest("svg") ? style.fill : style.color).rgb), light(behind(e))];
        const ratio = (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
        if (ratio < 4.5) low.push(`${node.data.trim()}: ${ratio.toFixed(2)}`);
    }
    return low;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with run_browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def server() -> Iterator[DashboardServer]:
    server = DashboardServer(busy_world())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def look(browser: Browser, server: DashboardServer) -> Iterator[Callable[..., Page]]:
    """Opens the dashboard and waits until it is live; at the end no page may have complained."""
    pages: list[Page] = []

    def open_page(width: int = 1280, **media: str) -> Page:
        page = browser.open(width, **media)
        pages.append(page)
        page.on_every_page(COUNT_GLIDES)
        page.go(server.url)
        page.wait_for(LIVE)
        return page

    yield open_page
    for page in pages:
        assert page.complaints() == []
        page.close()


def busy_world(*, key: str | None = KEY) -> DashboardWorld:
    """A fleet in which everything that the page can show has happened."""
    world = DashboardWorld(*members(), key=key)
    for number, link in enumerate(world.fleet.links()):
        link.load = WorkerLoad(
            queued_prompts=number, pending_prompt_tokens=number * 120, running_sequences=2 * number,
            blocks_total=100, blocks_running=40 + number, blocks_leased=10, prompt_tokens_computed=500,
        )  # fmt: skip
    sender = world.fleet.links()[0]
    sender.transfers = sent(4, 3_690_000)
    for ttft_s, tpot_s in ((0.2, 0.03), (0.4, 0.05), (1.6, 0.3)):
        times = world.watch.arrived(generation_request(prompt=(1,) * 100))
        world.clock.advance(ttft_s)
        times.received(1)
        world.clock.advance(tpot_s)
        times.received(2)
        times.answered(FinishReason.LENGTH)
    world.now_at -= 1500
    world.flip("worker-1", Role.DECODE, CONTROLLER, "answers are predicted to grow by 60 %")
    world.now_at += 600
    world.flip("worker-1", Role.PREFILL, "ops", "an operator's order", is_pinned=True)
    world.now_at += 900
    world.be("worker-0", replace(sender.role_state, is_cordoned=True))
    director = world.director
    director.past_decisions = [Decision(1.0, "all requests keep their limits", 2, 2, 2, 2, numbers={"goodput": 1.5})]
    director.other_alarms = ["worker-3 has executed nothing of its new role for 10 s"]
    director.past_actions = [OperatorAction(world.now_at, "ops@10.0.0.7", "drain worker-0", "done")]
    return world


def sent(num_handoffs: int, num_bytes: int) -> TransferReport:
    stats = PairStats(num_handoffs=num_handoffs, num_bytes=num_bytes)
    return TransferReport((PairReport(WorkerId("worker-2", 1), "push", stats),))


def card(number: int) -> str:
    return f".card[aria-labelledby$='worker-{number}']"


def pool_of(number: int) -> str:
    return f"document.querySelector(\"{card(number)}\").closest('.pool').dataset.role"


def card_is(number: int, mark: str) -> str:
    return f"document.querySelector(\"{card(number)}\").classList.contains('{mark}')"


# --- what it shows


def test_page_shows_the_fleet(look: Callable[..., Page]) -> None:
    page = look()
    assert [page.run(pool_of(number)) for number in range(4)] == ["prefill", "prefill", "decode", "decode"]
    first = page.text(card(0))
    for words in ("worker-0", "cordoned: no new work", "50 of 100", "0 of 8", "Uncordon", "To decode"):
        assert words in first
    assert "pinned" in page.text(card(1))
    assert "1.60 s over" in page.text("#ttft")
    assert "66 %" in page.text("#attainment")
    assert "nothing of its new role" in page.text("#alarms")
    assert "answers are predicted to grow by 60 %" in page.text("#changes")
    assert "2 migrated" in page.text("#changes")
    assert "drain worker-0" in page.text("#actions")
    assert "all requests keep their limits" in page.text("#decision")
    assert page.run("document.querySelector('#numbers').textContent").endswith("goodput: 1.5")
    assert "3.7 MB" in page.text("#move-counts")
    assert page.run("document.querySelectorAll('#timeline .segment').length") == 6
    assert not page.run("document.querySelector('.pool[data-role=mixed]').checkVisibility()")
    assert page.text("#controller") == "Roles: automatic; this router does not decide"


def test_timeline_has_changes_that_failed_in_the_new_role_and_none_that_never_began(
    look: Callable[..., Page], server: DashboardServer
) -> None:
    world, director = server.world, server.world.director
    never, after = (replace(director.past_changes[0], stage=RoleStage.FAILED, changed_s=s) for s in (0.0, 0.02))
    director.past_changes = [replace(never, order_id="never"), after, director.past_changes[1]]
    page = look()
    num_prefill_bars = page.run("document.querySelectorAll('#timeline .segment.prefill').length")
    assert num_prefill_bars == 3  # worker-0's, and worker-1's before and after
    assert page.run("document.querySelectorAll('#timeline .flip').length") == 2
    assert len(world.source.build().changes) == 3


def test_page_loads_nothing_from_elsewhere_and_keeps_no_cookie(look: Callable[..., Page]) -> None:
    page = look()
    foreign = "performance.getEntriesByType('resource').filter((e) => !e.name.startsWith(location.origin)).length"
    assert (page.run(foreign), page.run("document.cookie")) == (0, "")


def test_markup_in_names_and_reasons_is_text(look: Callable[..., Page], server: DashboardServer) -> None:
    server.do(lambda: server.world.flip("worker-2", Role.MIXED, "<b>x</b>", "<img src=x onerror=alert(1)>"))
    page = look()
    assert "<img src=x onerror=alert(1)>" in page.text("#changes")
    assert page.run("document.querySelectorAll('#changes img, #changes b').length") == 0


def test_handoffs_appear_as_they_happen(look: Callable[..., Page], server: DashboardServer) -> None:
    page = look()
    sender = server.world.fleet.links()[0]
    server.do(lambda: setattr(sender, "transfers", sent(7, 5_690_000)))
    page.wait_for("document.querySelector('#moves').innerText.includes('worker-0 → worker-2: 3 handoffs, 2.0 MB')")


def test_migrations_appear_as_they_happen(look: Callable[..., Page], server: DashboardServer) -> None:
    page = look()
    link = server.world.fleet.links()[2]
    load = replace(link.load, migrations_sent=2, migrations_open=3, migration_longest_pause_s=0.04)
    server.do(lambda: setattr(link, "load", load))
    page.wait_for("document.querySelector('#moves').innerText.includes('worker-2: 2 sequences migrated')")
    assert "3 migrating" in page.text(card(2))
    assert "40 ms" in page.text("#move-counts")


def test_fleet_without_workers_is_explained(look: Callable[..., Page], server: DashboardServer) -> None:
    server.world.fleet.members.clear()
    page = look()
    assert "No worker is attached" in page.text("#workers")
    assert not page.run("document.querySelector('#pools').checkVisibility()")


# --- flips


def test_card_glides_to_the_other_pool_and_the_change_is_said(
    look: Callable[..., Page], server: DashboardServer
) -> None:
    page = look(prefers_reduced_motion="no-preference")
    page.run(f'document.querySelector("{card(2)} button:nth-child(2)").focus()')
    server.do(lambda: server.world.flip("worker-2", Role.PREFILL, CONTROLLER, "a burst of long prompts"))
    page.wait_for(f"{pool_of(2)} === 'prefill'")
    assert page.run("window.glides") > 0
    assert "worker-2 is now a prefill worker." in page.text("#said")
    assert "a burst of long prompts" in page.text("#changes")
    assert page.run(f'document.activeElement.closest("{card(2)}") && document.activeElement.innerText') == "To mixed"


def test_card_does_not_glide_where_motion_is_unwelcome(look: Callable[..., Page], server: DashboardServer) -> None:
    page = look(prefers_reduced_motion="reduce")
    server.do(lambda: server.world.flip("worker-2", Role.MIXED, CONTROLLER, "one worker is left"))
    page.wait_for(f"{pool_of(2)} === 'mixed'")
    assert page.run("window.glides") == 0
    assert page.run("document.querySelector('.pool[data-role=mixed]').checkVisibility()")


# --- orders


def ask_split(page: Page, num_prefill: int, num_decode: int) -> None:
    page.write("#num-prefill", str(num_prefill))
    page.write("#num-decode", str(num_decode))
    page.click("#rebalance button.primary")


def outcome_has(words: str) -> str:
    return f"document.querySelector('#outcome').innerText.includes('{words}')"


def test_rebalance_needs_the_key(look: Callable[..., Page], server: DashboardServer) -> None:
    page = look()
    ask_split(page, 1, 3)
    page.wait_for(outcome_has("key first"))
    assert page.run("document.activeElement.id") == "key"
    page.write("#key", "not-the-operators-key")
    ask_split(page, 1, 3)
    page.wait_for(outcome_has("not known here"))
    assert [link.order for link in server.world.fleet.links()] == [None] * 4


def test_rebalance_with_the_key_moves_a_worker_and_the_key_stays_in_the_tab(
    look: Callable[..., Page], server: DashboardServer
) -> None:
    page = look()
    split = "['#num-prefill', '#num-decode'].map((id) => document.querySelector(id).value)"
    assert page.run(split) == ["1", "2"]  # worker-0 is drained
    page.write("#key", KEY)
    page.click("#preview")
    page.wait_for(outcome_has("0 change(s) would do it"))
    page.write("#num-prefill", "2")
    page.write("#num-decode", "1")
    page.click("#preview")
    page.wait_for(outcome_has("worker-3 would go from decode to prefill"))
    assert server.world.link("worker-3").order is None
    page.click("#rebalance button.primary")
    page.wait_for(outcome_has("worker-3: has been told to go from decode to prefill"))
    page.wait_for(card_is(3, "changing"))
    server.do(lambda: [server.world.obey(f"worker-{number}") for number in (1, 2, 3)])
    page.wait_for(f"{pool_of(3)} === 'prefill'")
    page.wait_for(f"!{card_is(3, 'changing')}")
    assert page.run("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
    page.click("#forget")
    assert page.run("[sessionStorage.length, document.querySelector('#key').value]") == [0, ""]


def test_router_that_wants_keys_tells_nothing_without_an_operators(browser: Browser, tmp_path: Path) -> None:
    chat_key = add_key(tmp_path / "keys.json", "alice")
    server = DashboardServer(DashboardWorld(*members(), keys_file=tmp_path / "keys.json"))
    server.start()
    page = browser.open()
    try:
        page.go(server.url)
        banner = "document.querySelector('#banner').innerText"
        page.wait_for(f"{banner}.includes('tells nothing without a key: this needs a key')")
        assert page.run("document.activeElement.id") == "key"
        assert page.run("document.querySelectorAll('.card').length") == 0
        page.write("#key", chat_key)
        page.wait_for(f"{banner}.includes('the key alice has the scope chat; this needs operator')")
        assert page.run("document.querySelectorAll('.card').length") == 0
        page.write("#key", KEY)
        page.wait_for(LIVE)
        assert page.run("document.querySelectorAll('.card').length") == 4
        assert page.complaints() == []
    finally:
        page.close()
        server.stop()


def test_card_can_be_ordered_about_with_the_keyboard(look: Callable[..., Page], server: DashboardServer) -> None:
    page = look()
    page.write("#key", KEY)
    page.run(f'document.querySelector("{card(3)} button").focus()')
    page.press("Enter", 13)
    page.command("Input.dispatchKeyEvent", type="char", text="\r")
    page.wait_for(outcome_has("worker-3 has been told to go from decode to prefill"))
    server.do(lambda: server.world.obey("worker-3"))
    page.wait_for(f"{pool_of(3)} === 'prefill'")
    assert server.world.link("worker-3").role_state.is_pinned


def test_split_that_does_not_add_up_is_explained(look: Callable[..., Page]) -> None:
    page = look()
    page.write("#key", KEY)
    ask_split(page, 5, 5)
    page.wait_for(outcome_has("5 prefill and 5 decode workers are 10; there are 3"))


# --- a router that goes away


def test_lost_router_is_shown_with_the_last_update_and_found_again(
    look: Callable[..., Page], server: DashboardServer
) -> None:
    page = look()
    server.stop()
    page.wait_for("document.querySelector('#banner').checkVisibility()")
    assert "What you see is of " in page.text("#banner")
    assert page.text("#link") == "Disconnected"
    assert page.run("document.querySelectorAll('.card').length") == 4
    assert page.run(LOW_CONTRASTS) == []
    server.world.flip("worker-2", Role.PREFILL, CONTROLLER, "while nobody looked")
    server.start()
    page.wait_for(LIVE)
    assert not page.run("document.querySelector('#banner').checkVisibility()")
    page.wait_for(f"{pool_of(2)} === 'prefill'")
    assert "The router answers again." in page.text("#said")


# --- for everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_page_is_legible_named_and_fits(look: Callable[..., Page], scheme: str, width: int) -> None:
    page = look(width, prefers_color_scheme=scheme)
    assert page.run(LOW_CONTRASTS) == []
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    nodes = page.accessibility_nodes()
    operable = [node for node in nodes if node["role"] in {"button", "textbox", "spinbutton", "meter", "table"}]
    assert len(operable) > 25
    assert [node for node in operable if not node["name"] and node["role"] != "table"] == []
    names = [node["name"] for node in operable if node["role"] == "button"]
    assert len(names) == len(set(names))
    roles = {node["role"] for node in nodes}
    assert {"banner", "main", "contentinfo", "region"} <= roles
    assert {node["name"] for node in nodes if node["role"] == "article"} == {f"worker-{n}" for n in range(4)}
