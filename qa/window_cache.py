"""Windows kept by content: the same questions are cut once for each tokenizer, not once for each run.

A file is named by everything that decides its windows: the questions, how the tokenizer cuts, the lengths and
the version of the library that does it. The trap: a cache must never be why a run fails, so a file that is
torn or of something else is made again, and where a folder cannot be written the run does without.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from transformers import PreTrainedTokenizerBase

from qa.errors import UserError
from qa.files import replacing
from qa.model import tokenizer_fingerprint
from qa.squad import QuestionSet
from qa.windows import WindowSet

# Beside the experiments, in their folder.
WINDOWS_FOLDER = ".windows"
FORMAT = 1
ARRAYS = (
    "splits",
    "ids",
    "types",
    "chars",
    "question",
    "ordinal",
    "context_start",
    "context_end",
    "first_context_token",
    "cls",
    "shortened",
)
# The whole of SQuAD takes about 60 MB; those used longest ago go first.
MOST_FILES = 16


def kept_windows(
    folder: Path,
    questions: QuestionSet,
    tokenizer: PreTrainedTokenizerBase,
    lengths: tuple[int, ...],
    *,
    make: Callable[[], WindowSet],
) -> WindowSet:
    """The windows of these questions: read if they have been made before, else made and kept.

    Args:
        folder: where they are kept, made if it is not there.
        questions: what is cut.
        tokenizer: what cuts.
        lengths: whatever else decides the windows.
        make: cuts them.
    """
    path = folder / f"{_key(questions, tokenizer, lengths)}.npz"
    found = _read(path, questions)
    if found is None:
        found = make()
        _keep(path, found)
    return found


def _key(questions: QuestionSet, tokenizer: PreTrainedTokenizerBase, lengths: tuple[int, ...]) -> str:
    decides = [FORMAT, tokenizers.__version__, questions.sha256(), tokenizer_fingerprint(tokenizer), *lengths]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def _read(path: Path, questions: QuestionSet) -> WindowSet | None:
    """None where there is no such file, or none that is whole."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ARRAYS}
        path.touch()
    except Exception:  # noqa: BLE001  # zip, zlib and numpy's own parser have a dozen kinds between them
        return None
    shortened = tuple(arrays.pop("shortened").tolist())
    return WindowSet(
        **arrays, contexts=tuple(item.context for item in questions.questions), shortened=shortened
    )


def _keep(path: Path, windows: WindowSet) -> None:
    arrays: dict[str, Any] = {name: getattr(windows, name) for name in ARRAYS}
    arrays["shortened"] = np.array(windows.shortened, dtype=np.int64)
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        files = sorted(path.parent.glob("*.npz"), key=lambda item: item.stat().st_mtime)
        for old in files[:-MOST_FILES]:
            old.unlink(missing_ok=True)
    except (OSError, UserError):
        return  # the run goes on without
