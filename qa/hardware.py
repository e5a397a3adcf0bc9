"""Which device and precision to train with, and a record of what the run ran on.

The trap: float16 needs a gradient scaler and overflows on CPUs, so "auto" takes bfloat16 where the hardware
multiplies it, float16 only on CUDA devices without bfloat16, and float32 everywhere else.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from qa.errors import UserError

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "evaluate",
    "accelerate",
    "numpy",
    "safetensors",
)


def choose_device(wanted: str) -> str:
    """`cpu`, `cuda` or `mps`.

    Raises:
        UserError: a device this machine does not have.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[wanted]:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise UserError(
            f"device: {wanted!r} is not available here (found: {found}); use auto or one of these"
        )
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """`fp32`, `bf16` or `fp16`.

    Raises:
        UserError: fp16 on a device that cannot train with it.
    """
    if wanted == "fp16" and device != "cuda":
        raise UserError(
            f"precision: fp16 needs a CUDA device, this run uses {device}; use auto, bf16 or fp32"
        )
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    # Without these instructions the CPU emulates bfloat16 and is slower than with float32.
    return "bf16" if device == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"


def describe_device(device: str) -> str:
    """The device in words, for people and for `environment.json`."""
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory_mb(device: str) -> float:
    """Most memory this process has used: of the GPU on CUDA, resident memory elsewhere, in MB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    # Not on Windows, where everything but this figure works.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def describe_environment(device: str, precision: str) -> dict[str, Any]:
    """Versions, machine and commit, as `environment.json` holds them."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "platform": platform.platform(),
        "device": device,
        "device_name": describe_device(device),
        "precision": precision,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of this code, with `-dirty` if it was changed since; None outside a repository."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
