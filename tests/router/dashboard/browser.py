"""Debian's chromium without a screen, spoken to over the DevTools protocol through pipes: no driver, no socket."""

import base64
import contextlib
import json
import os
import select
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

CHROMIUM = shutil.which("chromium")
HIGH_FD = 200  # above what a test process has open
WAIT_S = 20.0  # far above what anything here takes; a test that gets there has failed
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-proxy-server", "--disable-gpu",
    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
    "--no-sandbox",  # in a container chromium cannot make one; the pages are ours
)  # fmt: skip


class Browser:
    """A running chromium. Commands are synchronous; events that come meanwhile are kept."""

    def __init__(self, write_fd: int, read_fd: int) -> None:
        self._write_fd = write_fd
        self._read_fd = read_fd
        self._unread = b""
        self._num_commands = 0
        self.events: list[dict[str, Any]] = []

    def command(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Sends a command and waits for its answer."""
        self._num_commands += 1
        message: dict[str, Any] = {"id": self._num_commands, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write_fd, json.dumps(message).encode() + b"\0")
        deadline_s = time.monotonic() + WAIT_S
        while (answer := self._read(deadline_s)).get("id") != self._num_commands:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _read(self, deadline_s: float) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._read_fd], [], [], max(0.0, deadline_s - time.monotonic()))
            assert ready, "chromium does not answer"
            chunk = os.read(self._read_fd, 1 << 20)
            assert chunk, "chromium has ended"
            self._unread += chunk
        text, self._unread = self._unread.split(b"\0", 1)
        return json.loads(text)

    def open(self, width: int = 1280, **media: str) -> "Page":
        """A page of its own, with a storage of its own; `media` are CSS media features, with _ for -."""
        context = self.command("Target.createBrowserContext")["browserContextId"]
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, context)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            page.command(f"{domain}.enable")
        page.command("Emulation.setEmulatedMedia", features=features)
        page.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        return page


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context

    def command(self, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - what the protocol takes
        return self._browser.command(method, self._session, **params)

    def close(self) -> None:
        self._browser.command("Target.disposeBrowserContext", browserContextId=self._context)

    def run(self, script: str) -> Any:  # noqa: ANN401 - any JSON value
        """The value of an expression; a promise is awaited."""
        result = self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Until a condition holds in the page."""
        script = f"""new Promise((done) => {{
            const end = performance.now() + {WAIT_S * 500};
            const look = () => {{
                if ({condition}) done(true);
                else if (performance.now() > end) done(false);
                else setTimeout(look, 20);
            }};
            look();
        }})"""
        assert self.run(script), f"{condition} does not come about; the page says: {self.text('body')[:2000]}"

    def go(self, url: str) -> None:
        self.command("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def on_every_page(self, script: str) -> None:
        """Runs a script before those of each page."""
        self.command("Page.addScriptToEvaluateOnNewDocument", source=script)

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def press(self, key: str, code: int) -> None:
        """A key of the keyboard, down and up."""
        for kind in ("rawKeyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def write(self, selector: str, text: str) -> None:
        """Types into a field that has been emptied."""
        self.run(f"(f => {{ f.focus(); f.select(); }})(document.querySelector({json.dumps(selector)}))")
        self.command("Input.insertText", text=text)

    def accessibility_nodes(self) -> list[dict[str, Any]]:
        """What a screen reader sees: role and name of every node that is not ignored."""
        nodes = self.command("Accessibility.getFullAXTree")["nodes"]
        return [
            {"role": node["role"]["value"], "name": node.get("name", {}).get("value", "")}
            for node in nodes
            if not node["ignored"]
        ]

    def complaints(self) -> list[str]:
        """Errors of scripts and of the security policy; failed requests are not among them."""
        mine = [event for event in self._browser.events if event.get("sessionId") == self._session]
        thrown = [str(event["params"]) for event in mine if event["method"] == "Runtime.exceptionThrown"]
        entries = [event["params"]["entry"] for event in mine if event["method"] == "Log.entryAdded"]
        return thrown + [entry["text"] for entry in entries if entry["source"] != "network"]

    def screenshot(self, file: Path) -> None:
        """The whole page as PNG."""
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def run_browser(profile: Path) -> Iterator[Browser]:
    """A chromium with an empty profile; it has ended, with all its processes, when the context is left."""
    assert CHROMIUM is not None, "there is no chromium"
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    pid = spawn((CHROMIUM, *FLAGS, f"--user-data-dir={profile}"), profile / "log", theirs_in, theirs_out)
    for fd in (theirs_in, theirs_out):
        os.close(fd)
    process = psutil.Process(pid)
    try:
        yield Browser(ours_out, ours_in)
    finally:
        family = [process, *process.children(recursive=True)]
        os.close(ours_out)  # chromium ends when its pipe does
        _, alive = psutil.wait_procs(family, timeout=5)
        for member in alive:
            member.kill()
        psutil.wait_procs(alive, timeout=5)
        os.close(ours_in)


def spawn(command: Sequence[str], log: Path, in_fd: int, out_fd: int) -> int:
    """Starts chromium; it reads commands from its descriptor 3 and writes to 4. Returns its pid."""
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT)
    actions = [
        (os.POSIX_SPAWN_DUP2, log_fd, 1), (os.POSIX_SPAWN_DUP2, log_fd, 2),
        (os.POSIX_SPAWN_DUP2, in_fd, HIGH_FD), (os.POSIX_SPAWN_DUP2, out_fd, HIGH_FD + 1),  # 3 or 4 may be the other
        (os.POSIX_SPAWN_DUP2, HIGH_FD, 3), (os.POSIX_SPAWN_DUP2, HIGH_FD + 1, 4),
        (os.POSIX_SPAWN_CLOSE, HIGH_FD), (os.POSIX_SPAWN_CLOSE, HIGH_FD + 1),
    ]  # fmt: skip
    try:
        return os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    finally:
        os.close(log_fd)
