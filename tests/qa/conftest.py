"""What several tests of `qa` share."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import small_runs
import tiny_models
from qa.experiment import Experiment


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


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("models") / "deberta")


@pytest.fixture(scope="session")
def whole(model, tmp_path_factory) -> Experiment:
    """A run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    process = small_runs.start(root, small_runs.settings(model))
    process.join(200)
    assert process.exitcode == 0
    return Experiment(root / small_runs.NAME)
