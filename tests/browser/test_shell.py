"""The dashboard as a whole: it is quiet, private and local, and its first start asks nothing."""

import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

import browsing
from dashboard import state

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [800, 1280, 1920])
def test_the_first_page_is_clean(visit, width, dark):
    page = visit(width=width, dark=dark)
    page.page.get_by_role("heading", name="Experiments", exact=True).wait_for()
    page.assert_clean()
    page.assert_fits()
    assert 0 < page.cost() <= browsing.FIRST_LOAD
    assert page.longest_task() < 5


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", [page for page in state.PAGES if page != "home"])
def test_every_page_is_clean_and_fits_a_small_window(visit, name, dark):
    page = visit(name, width=800, dark=dark, experiment="huge", other="huge-twin", runs="pocket,pocket-twin")
    page.assert_clean()
    page.assert_fits()
    assert 0 < page.cost() <= browsing.FIRST_LOAD


def answer(address: str, path: str, **headers: str) -> str:
    """The status line of an attempt to open the websocket."""
    parts = urlsplit(address)
    sent = {"Host": parts.netloc, **UPGRADE, **headers}
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode())
        return connection.recv(200).split(b"\r\n")[0].decode()


def test_only_the_pages_own_origin_may_open_the_websocket(site):
    stream = "/_stcore/stream"
    assert " 101 " in answer(site.address, stream, Origin=site.address)
    assert " 403 " in answer(site.address, stream, Origin="http://evil.example")
    # A foreign name that was made to resolve to this machine.
    evil = f"evil.example:{urlsplit(site.address).port}"
    assert " 403 " in answer(site.address, stream, Host=evil, Origin=f"http://{evil}")
    assert " 403 " in answer(site.address, "/_stcore/health", Host=evil)


def test_the_server_listens_on_loopback_only(site):
    port = urlsplit(site.address).port
    listening = [
        found.laddr.ip
        for process in psutil.process_iter()
        if process.ppid() == psutil.Process().pid
        for found in process.net_connections("tcp")
        if found.status == psutil.CONN_LISTEN and found.laddr.port == port
    ]
    assert listening == ["127.0.0.1"]


def test_a_first_start_opens_the_browser_and_asks_nothing(tmp_path, furnished, monkeypatch):
    """As `make demo` does it, for a user who never started Streamlit."""
    opener = tmp_path / "bin" / "xdg-open"
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\n')
    opener.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(opener.parent), prepend=":")
    with browsing.dashboard(furnished, "--server.headless", "false") as address:
        end = time.monotonic() + 30
        while not (tmp_path / "opened").exists():
            assert time.monotonic() < end, "no browser was opened"
            time.sleep(0.05)
        time.sleep(0.1)
        opened = Path(tmp_path / "opened").read_text()
    assert urlsplit(opened).port == urlsplit(address).port


def test_a_page_can_be_left_for_another_and_keeps_the_experiment(visit):
    page = visit("ask", experiment="huge")
    page.page.get_by_role("link", name="Attention", exact=True).first.click()
    page.settle()
    page.page.wait_for_url("**/attention?*")
    assert "experiment=huge" in page.query()
    page.page.get_by_role("link", name="Experiments", exact=True).first.click()
    page.settle()
    assert page.query() == ""
    page.page.go_back()
    page.settle()
    assert "experiment=huge" in page.query()
    page.assert_clean()
