"""The benchmark's own way to load the page: what it waits for is there, and what it counts is not nothing."""

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import psutil
import pytest

import small_runs
from benchmarks import page
from benchmarks.comparison import Options


def bytes_of_a_small_page(folder):
    page.LARGE = replace(page.LARGE, layers=2, heads=2, width=16, vocabulary=120)
    (showing, _) = page.cases(Options(folder, dataset=str(folder / "dev.json")))
    work = showing.prepare("ours")
    try:
        return work()
    finally:
        work.close()


def test_the_page_is_loaded_and_counted(tmp_path):
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on the PATH: install it (Debian: apt-get install chromium)")
    small_runs.write_questions(tmp_path / "dev.json", paragraphs=2, seed=3)
    # A process of its own, as Playwright allows one browser driver in a thread, and other tests have theirs.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as executor:
        assert 5_000 < executor.submit(bytes_of_a_small_page, tmp_path).result() < 500_000
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(one.info["cmdline"])]
