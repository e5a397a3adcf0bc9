"""What several tests of `qa` share."""

import os
import subprocess
import sys
import textwrap

import pytest


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch):
    """Waiting for the disk would take most of the time; processes that tests start still do."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def python():
    """Runs Python code in a process of its own, which may wait for its standard input to end."""
    started = []

    def run(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
