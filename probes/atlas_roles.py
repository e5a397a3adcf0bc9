"""What a head is for, where its numbers say so clearly: roles with stated thresholds.

A head has a role if the lower end of its measure's 95 % interval reaches the role's threshold; of several
roles the first of the table counts, which has the more special ones first. Most heads of a trained model have
none, and that is a finding too. The trap: a role says where a head looks, not that the model needs it; its
importance says that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Role:
    """A role of heads.

    Attributes:
        name: for people; short enough for a cell of a map.
        measure: that shows it.
        least: what the lower end of the measure's interval must reach.
        meaning: one sentence.
    """

    name: str
    measure: str
    least: float
    meaning: str

    @property
    def rule(self) -> str:
        """The threshold in words."""
        return f"{self.measure} ≥ {self.least:g}"


ROLES = (
    Role("uniform", "evenness", 0.95, "attends to every token alike, or nearly so"),
    Role("same word", "same_word", 0.3, "attends from a word to its other places"),
    Role("question → answer", "question_to_answer", 0.3, "attends from the question to the gold answer"),
    Role("previous", "previous", 0.5, "attends to the token before"),
    Role("next", "next", 0.5, "attends to the token after"),
    Role("itself", "itself", 0.5, "attends to the very token"),
    Role("[SEP]", "sep", 0.5, "attends to the separators: a sink"),
    Role("[CLS]", "cls", 0.5, "attends to the first token: a sink"),
    Role("answer → question", "answer_to_question", 0.5, "attends from the gold answer to the question"),
    Role("context → question", "context_to_question", 0.5, "attends from all of the context to the question"),
)
NO_ROLE = ""


def roles_of(lows: Mapping[str, Float]) -> NDArray[np.object_]:
    """The role of each head [L, H]; NO_ROLE where it has none.

    Args:
        lows: lower end of the interval of each measure [L, H]; where it is NaN (one paragraph says nothing
            of how paragraphs differ) it shows no role.
    """
    roles = np.full(next(iter(lows.values())).shape, NO_ROLE, dtype=np.object_)
    for role in reversed(ROLES):
        roles[lows[role.measure] >= role.least] = role.name
    return roles
