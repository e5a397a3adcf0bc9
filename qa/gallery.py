"""Where the pictures of a question go in an experiment's folder.

The first question that is drawn has `attentions_vis/` itself, every other one a folder of its own in there;
`question.json` says whose a folder is, and so no picture takes the place of another question's. The trap: two
programs may draw at once, so the folder is claimed under a lock.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from filelock import FileLock

from qa import files
from qa.experiment import Experiment

FOLDER = "attentions_vis"
OWNER = "question.json"
LOCK = ".lock"
LONGEST_SLUG = 40


def picture_folder(experiment: Experiment, question: str, context: str) -> Path:
    """The folder for pictures of a question about a context; made if need be, and marked as theirs.

    Raises:
        UserError: it cannot be written.
    """
    folder = experiment.path / FOLDER
    asked = {"question": question, "context": context}
    if not _claimed(folder, asked):
        folder = folder / _name(asked)
        files.write_json(folder / OWNER, asked)
    files.remove_leftovers(folder.glob(".*"))
    return folder


def _claimed(folder: Path, asked: dict[str, str]) -> bool:
    """Whether the folder is that question's, which it becomes if it was nobody's."""
    owner = folder / OWNER
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            # Pictures that nobody marked are still somebody's.
            if not owner.exists() and not any(folder.glob("*.png")):
                files.write_json(owner, asked)
            return _is_owner(owner, asked)


def _is_owner(owner: Path, asked: dict[str, str]) -> bool:
    try:
        return bool(files.read_json(owner) == asked)
    except files.BrokenFileError:
        return False


def _name(asked: dict[str, str]) -> str:
    """A name that any file system takes, and that no other question has."""
    slug = re.sub("[^a-z0-9]+", "-", asked["question"].lower()).strip("-")[:LONGEST_SLUG].rstrip("-")
    sha = hashlib.sha256(json.dumps(asked, ensure_ascii=True, sort_keys=True).encode()).hexdigest()
    return f"{slug or 'question'}-{sha[:12]}"
