"""Which device and precision follow from what the machine has, and what is written down about it."""

import resource
import subprocess
from types import SimpleNamespace

import pytest
import torch

from qa import hardware
from qa.errors import UserError
from qa.hardware import choose_device, choose_precision, describe_device, describe_environment, peak_memory_mb


@pytest.fixture
def machine(monkeypatch):
    """Make torch see another machine: `machine(cuda=True, bf16=False)`."""

    def pretend(*, cuda=False, mps=False, bf16=False, avx512_bf16=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        # Emulated bfloat16 is what older devices answer if asked carelessly.
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
        )
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)

    return pretend


@pytest.mark.parametrize(
    ("there", "chosen"),
    [({}, "cpu"), ({"cuda": True}, "cuda"), ({"mps": True}, "mps"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_takes_the_fastest_device_there_is(machine, there, chosen):
    machine(**there)
    assert choose_device("auto") == chosen
    assert choose_device(chosen) == chosen
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize(("wanted", "found"), [("cuda", "cpu, mps"), ("mps", "cpu, cuda")])
def test_a_device_that_is_not_there_is_refused(machine, wanted, found):
    machine(cuda=wanted != "cuda", mps=wanted != "mps")
    with pytest.raises(UserError) as caught:
        choose_device(wanted)
    assert str(caught.value) == (
        f"device: {wanted!r} is not available here (found: {found}); use auto or one of these"
    )


@pytest.mark.parametrize(
    ("device", "there", "chosen"),
    [
        ("cuda", {"bf16": True}, "bf16"),
        ("cuda", {"bf16": False}, "fp16"),
        ("cuda", {"bf16": False, "avx512_bf16": True}, "fp16"),
        ("cpu", {"avx512_bf16": True}, "bf16"),
        ("cpu", {"avx512_bf16": False}, "fp32"),
        ("cpu", {"bf16": True}, "fp32"),
        ("mps", {"bf16": True, "avx512_bf16": True}, "fp32"),
    ],
)
def test_auto_takes_the_precision_that_the_device_multiplies_in(machine, device, there, chosen):
    machine(cuda=device == "cuda", mps=device == "mps", **there)
    assert choose_precision("auto", device) == chosen


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_a_precision_asked_for_is_taken(machine, device, wanted):
    machine()
    assert choose_precision(wanted, device) == wanted


def test_float16_needs_a_gradient_scaler(machine):
    machine()
    assert choose_precision("fp16", "cuda") == "fp16"
    for device in ("cpu", "mps"):
        with pytest.raises(
            UserError, match=f"^precision: fp16 needs a CUDA device, this run uses {device}; use"
        ):
            choose_precision("fp16", device)


def test_a_gpu_is_described_by_name_and_memory(monkeypatch):
    properties = SimpleNamespace(name="Some GPU", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    assert describe_device("cuda") == "Some GPU, 80 GiB"


def test_a_cpu_is_described_by_its_threads():
    assert describe_device("cpu").endswith(f", {torch.get_num_threads()} threads")


@pytest.mark.parametrize(("platform", "reported"), [("linux", 2_000_000), ("darwin", 2_048_000_000)])
def test_peak_memory_is_in_megabytes(monkeypatch, platform, reported):
    # Linux reports KiB, macOS bytes.
    monkeypatch.setattr(hardware.sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=reported))
    assert peak_memory_mb("cpu") == pytest.approx(2048)


def test_peak_memory_of_a_gpu_is_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3_500_000_000)
    assert peak_memory_mb("cuda") == 3500


def test_environment_names_versions_and_commit(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = describe_environment("cpu", "bf16")
    assert found["versions"]["torch"] == str(torch.__version__)
    assert found["processes"] == 2
    assert (found["device"], found["precision"]) == ("cpu", "bf16")
    assert found["git_commit"] is None or len(found["git_commit"].removesuffix("-dirty")) == 40


@pytest.mark.parametrize("failure", [FileNotFoundError("git"), subprocess.CalledProcessError(128, "git")])
def test_environment_without_a_repository(monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(subprocess, "run", fail)
    assert describe_environment("cpu", "fp32")["git_commit"] is None
