"""What browser tests share: the dashboard as a process, and a page that is watched while it is used.

A `Visit` counts what a user would pay for (bytes, long tasks of the browser's main thread) and notes what
must not happen: console errors, exceptions on the page, requests to any other host. The trap: Streamlit keeps
old elements on the page while a script runs, so nothing may be looked at before `settle`.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Response, WebSocket

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
STARTING_SECONDS = 60
WAIT_MS = 180_000

# Budgets of a page: bytes through the websocket and as media, counted before compression.
FIRST_LOAD, CLICK = 1_500_000, 200_000

SEARCHED = ("/_stcore/health", "/_stcore/host-config")
CHROMIUM = (
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)
LONG_TASKS = """
    window.longTasks = [];
    new PerformanceObserver(list => list.getEntries().forEach(task => window.longTasks.push(task.duration)))
        .observe({type: "longtask", buffered: true});
"""


@contextlib.contextmanager
def dashboard(experiments: Path, *options: str) -> Iterator[str]:
    """The dashboard over a folder of experiments as a process of its own; its address."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "dashboard" / "Home.py")]
    server = ["--server.headless", "true", "--server.port", str(port), *options]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *server, "--", "--experiments-dir", str(experiments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Not the project's folder: `python -m` would put it on the import path.
                cwd=folder,
            )
        address = f"http://{HOST}:{port}"
        try:
            _wait_until_healthy(process, address, log)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_healthy(process: subprocess.Popen, address: str, log: Path) -> None:
    began = time.monotonic()
    while time.monotonic() - began < STARTING_SECONDS:
        if process.poll() is not None:
            raise AssertionError(f"the dashboard ended with {process.returncode}: {log.read_text()}")
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise AssertionError(f"the dashboard did not start: {log.read_text()}")


def chromium_options() -> list[str]:
    """How Chromium is started; its sandbox does not work for root."""
    return [*CHROMIUM, *(["--no-sandbox"] if os.geteuid() == 0 else [])]


@dataclass
class Visit:
    """A browser session on the dashboard, watched.

    Attributes:
        page: Playwright's page.
        address: of the dashboard.
        errors: console errors and exceptions of the browser.
        foreign: addresses of other hosts that were asked for.
        received: bytes through the websocket and as media so far.
    """

    page: Page
    address: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    received: int = 0

    def open(self, path: str = "", **query: object) -> "Visit":
        """Load a page of the dashboard as from a pasted link, and wait until it is drawn."""
        self.page.goto(f"{self.address}/{path}" + (f"?{urlencode(query)}" if query else ""))
        self.page.locator("[data-testid=stApp][data-test-connection-state=CONNECTED]").wait_for(
            timeout=WAIT_MS
        )
        self.settle()
        return self

    def settle(self) -> None:
        """Wait until the script has run and nothing on the page is left over from before."""
        self.page.wait_for_timeout(300)
        self.page.locator("[data-test-script-state=notRunning]").wait_for(timeout=WAIT_MS)
        self.page.wait_for_timeout(200)
        self.page.locator("[data-test-script-state=notRunning]").wait_for(timeout=WAIT_MS)

    def cost(self) -> int:
        """Bytes received since the last call."""
        spent, self.received = self.received, 0
        return spent

    def longest_task(self) -> float:
        """Seconds of the longest task of the browser's main thread since the page was loaded."""
        return max(self.page.evaluate("window.longTasks"), default=0.0) / 1000

    def text(self) -> str:
        """Everything that the page says."""
        return self.page.locator("[data-testid=stApp]").inner_text()

    def query(self) -> str:
        """The query of the address."""
        return urlsplit(self.page.url).query

    def assert_clean(self) -> None:
        """No exception, no console error, no request to another host."""
        assert self.page.locator("[data-testid=stException]").all_inner_texts() == []
        assert self.errors == []
        assert self.foreign == []

    def assert_fits(self) -> None:
        """Nothing is wider than the window, so that no page must be scrolled sideways."""
        wide = self.page.evaluate(
            "[document.documentElement, ...document.querySelectorAll('[data-testid=stMain]')]"
            ".map(box => box.scrollWidth - box.clientWidth)"
        )
        assert max(wide) <= 0


def watch(browser: Browser, address: str, *, width: int = 1280, dark: bool = False) -> Visit:
    """A new session with an empty profile; close it with `visit.page.context.close()`."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
    )
    context.add_init_script(LONG_TASKS)
    visit = Visit(context.new_page(), address)
    context.on("console", lambda message: _note_error(visit, message))
    context.on("weberror", lambda error: visit.errors.append(str(error.error)))
    context.on("request", lambda request: _note_host(visit, request.url))
    context.on("response", lambda response: _count_media(visit, response))
    visit.page.on("websocket", lambda websocket: _count_frames(visit, websocket))
    return visit


def _note_error(visit: Visit, message: ConsoleMessage) -> None:
    # On a page other than the first Streamlit looks for its server below the page's path too, and finds none.
    is_search = urlsplit(message.location["url"]).path.endswith(SEARCHED)
    if message.type == "error" and not is_search:
        visit.errors.append(message.text)


def _note_host(visit: Visit, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != HOST:
        visit.foreign.append(url)


def _count_frames(visit: Visit, websocket: WebSocket) -> None:
    _note_host(visit, websocket.url)

    def count(frame: str | bytes) -> None:
        visit.received += len(frame)

    websocket.on("framereceived", count)


def _count_media(visit: Visit, response: Response) -> None:
    if urlsplit(response.url).path.startswith("/media/"):
        visit.received += int(response.headers.get("content-length", 0))
