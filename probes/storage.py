"""Attention in a file: arrays and their description in one safetensors file, no pickle.

The trap: such a file may come from anybody, and safetensors checks only its own frame. So shapes, types and
numbers are checked before anything is made of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from probes.maps import REGIONS, Attention
from qa.files import BrokenFileError, Types, check_types, replacing

FORMAT = "attention"
VERSION = 1
TYPES: Types = {
    "layers": (list,),
    "heads": (list,),
    "tokens": (list,),
    "answer": (list,),
    "before": (int,),
    "question": (str,),
    "context": (str,),
}
INTEGERS = ("words", "sentences", "regions", "windows")
OPTIONAL = ("seen", "norms")


def save_attention(attention: Attention, path: Path) -> None:
    """Write `attention`, whole or not at all.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    arrays = {name: getattr(attention, name) for name in ("probabilities", "chars", *INTEGERS)}
    arrays |= {name: array for name in OPTIONAL if (array := getattr(attention, name)) is not None}
    described = {"version": VERSION} | {name: getattr(attention, name) for name in TYPES}
    with replacing(path) as temporary:
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            temporary,
            # ASCII escapes keep lone surrogates of untrusted text, which UTF-8 could not hold.
            metadata={FORMAT: json.dumps(described, ensure_ascii=True)},
        )


def load_attention(path: Path) -> Attention:
    """What `save_attention` wrote.

    Raises:
        BrokenFileError: missing, broken, or not such a file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        raise BrokenFileError(f"{path}: cannot be read as attention ({error}); capture it again") from error
    described = _described(path, metadata.get(FORMAT))
    if reason := _wrong(described, arrays):
        raise BrokenFileError(f"{path}: is no whole attention file ({reason}); capture it again")
    return Attention(
        probabilities=arrays["probabilities"],
        chars=arrays["chars"],
        seen=arrays.get("seen"),
        norms=arrays.get("norms"),
        layers=tuple(described["layers"]),
        heads=tuple(described["heads"]),
        tokens=tuple(described["tokens"]),
        answer=(described["answer"][0], described["answer"][1]),
        before=described["before"],
        question=described["question"],
        context=described["context"],
        **{name: arrays[name] for name in INTEGERS},
    )


def _described(path: Path, text: str | None) -> dict[str, Any]:
    try:
        described = json.loads(text or "")
    except (ValueError, RecursionError) as error:
        raise BrokenFileError(f"{path}: does not say that it holds attention; capture it again") from error
    if not isinstance(described, dict) or described.get("version") != VERSION:
        raise BrokenFileError(f"{path}: holds attention of another version than {VERSION}; capture it again")
    check_types(path, described, TYPES, needed=True)
    return described


def _wrong(described: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> str | None:
    """What does not fit together; None if all does."""
    L, H, T = (len(described[name]) for name in ("layers", "heads", "tokens"))
    shapes = {"probabilities": (L, H, T, T), "chars": (T, 2)} | dict.fromkeys(INTEGERS, (T,))
    types = {"probabilities": "f"} | dict.fromkeys(("chars", *INTEGERS), "i")
    if "seen" in arrays:
        shapes["seen"], types["seen"] = (T, T), "b"
    if "norms" in arrays:
        shapes["norms"], types["norms"] = (L, H, T), "f"
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape or arrays[name].dtype.kind != types[name]:
            return f"{name} is missing or not of shape {shape}"
    numbers = [*described["layers"], *described["heads"], *described["answer"]]
    if not all(type(number) is int for number in numbers) or len(described["answer"]) != 2:
        return "layers, heads and answer must be whole numbers"
    if not all(isinstance(token, str) for token in described["tokens"]):
        return "tokens must be texts"
    return _wrong_numbers(arrays, T)


def _wrong_numbers(arrays: dict[str, NDArray[Any]], T: int) -> str | None:
    if T == 0:
        return "there is no token"
    for name, top in (("words", T), ("sentences", T), ("regions", len(REGIONS))):
        if arrays[name].min() < 0 or arrays[name].max() >= top:
            return f"{name} must be from 0 to {top - 1}"
    for name in ("words", "sentences"):
        if arrays[name][0] != 0 or not np.isin(np.diff(arrays[name]), (0, 1)).all():
            return f"{name} must count up from 0"
    return None
