"""How many heads a model can do without: the score as heads are removed one after another.

The order is that of |effect|, the smallest first: the mean over questions of how far the log-probability of
the gold answer moves without the head, up or down, by knock-out or by its estimate from gradients. It is not
that of least harm, in which a head that hurts as often as it helps, much each time, would go early. Random
orders are there to compare with. The trap: an order chosen on the very questions it is then scored on
flatters itself; so the paragraphs are dealt into two halves in turn, and each is scored with the order found
on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from probes.ablation import Head
from probes.analyses import Kind
from probes.atlas_files import COMMAND, ENDS, SCORES, row_groups, values_of
from probes.atlas_importance import Gold, knock_out_sets
from probes.atlas_statistics import ClusterMeans, by_paragraph
from qa.squad import Question

Float = NDArray[np.float64]

GUIDES = ("knockout", "gradient")
RANDOM_ORDERS = 5
STEPS = 12

PRUNED = Kind(
    "atlas_pruned",
    1,
    pa.schema(
        [
            ("id", pa.string()),
            ("paragraph", pa.string()),
            ("order", pa.string()),
            ("removed", pa.int32()),
            *((score, pa.float64()) for score in SCORES),
        ]
    ),
    COMMAND,
)
PRUNING = Kind(
    "atlas_pruning",
    1,
    pa.schema(
        [
            ("order", pa.string()),
            ("removed", pa.int32()),
            *((f"{score}{end}", pa.float64()) for score in SCORES for end in ENDS),
            ("questions", pa.int64()),
        ]
    ),
    COMMAND,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """In which orders heads are removed, and how many at a time.

    Attributes:
        names: of the orders.
        orders: heads in each order, for the paragraphs of each half [2][orders].
        removed: how many are gone at each step, from 0 to all.
        halves: of the paragraphs for whose questions heads were switched off, 0 or 1.
    """

    names: tuple[str, ...]
    orders: tuple[tuple[tuple[Head, ...], ...], ...]
    removed: tuple[int, ...]
    halves: dict[str, int]

    def scores(self, gold: Gold, *, how: str) -> Float:
        """Exact match and F1 of a question at each step of each order [orders, steps, 2]."""
        own = self.orders[self.halves[gold.question.paragraph]]
        sets = [order[:count] for order in own for count in self.removed[1:]]
        found = knock_out_sets(gold, sets, how=how).scores
        changed = found[1:].reshape(len(own), len(self.removed) - 1, 2)
        whole = np.broadcast_to(found[0], (len(own), 1, 2))
        return np.concatenate([whole, changed], axis=1)


def plan_pruning(questions: Path, shape: tuple[int, int]) -> Plan | None:
    """The orders, from the importances in a file of questions; None for fewer than two paragraphs of them."""
    sums, counts = np.zeros((2, len(GUIDES), *shape)), np.zeros(2)
    halves: dict[str, int] = {}
    for part in row_groups(questions):
        values = np.stack([values_of(part, name, shape) for name in GUIDES], axis=1)  # [Q, guides, L, H]
        for paragraph, own in zip(part["paragraph"].to_pylist(), values, strict=True):
            if np.isfinite(own).all():
                half = halves.setdefault(paragraph, len(halves) % 2)
                sums[half] += np.abs(own)
                counts[half] += 1
    if len(halves) < 2:
        return None
    # Each half takes the order of the other.
    means = sums[::-1] / counts[::-1][:, None, None, None]
    size = int(np.prod(shape))
    random = [_heads(np.random.default_rng([0, n]).permutation(size), shape) for n in range(RANDOM_ORDERS)]
    orders = tuple(
        (*(_heads(np.argsort(each.ravel(), kind="stable"), shape) for each in own), *random) for own in means
    )
    removed = np.unique(np.linspace(0, size, STEPS + 1).round().astype(int))
    names = (*GUIDES, *(f"random {number}" for number in range(1, RANDOM_ORDERS + 1)))
    return Plan(names, orders, tuple(removed.tolist()), halves)


def _heads(places: NDArray[np.int64], shape: tuple[int, int]) -> tuple[Head, ...]:
    return tuple((int(place) // shape[1], int(place) % shape[1]) for place in places)


def pruned_table(found: Sequence[tuple[Question, Float]], plan: Plan) -> pa.Table:
    """A row for each question, order and step, in this order."""
    rows: list[dict[str, Any]] = [
        {
            "id": question.id,
            "paragraph": question.paragraph,
            "order": name,
            "removed": count,
            **dict(zip(SCORES, scores[order, step].tolist(), strict=True)),
        }
        for question, scores in found
        for order, name in enumerate(plan.names)
        for step, count in enumerate(plan.removed)
    ]
    return pa.Table.from_pylist(rows, schema=PRUNED.columns)


def pruning_table(path: Path, plan: Plan) -> pa.Table:
    """The mean scores at each step of each order, with intervals, from the file of `pruned_table`s."""
    shape = (len(plan.names), len(plan.removed), len(SCORES))
    means = ClusterMeans(shape)
    for part in row_groups(path):
        values = np.stack([part[score].to_numpy() for score in SCORES], axis=1).reshape(-1, *shape)
        paragraphs = part["paragraph"].to_pylist()[:: shape[0] * shape[1]]
        for questions in by_paragraph(paragraphs):
            means.add(values[questions])
    found = means.means()
    columns: dict[str, Any] = {
        "order": np.repeat(plan.names, shape[1]),
        "removed": np.tile(plan.removed, shape[0]),
        "questions": found.count[:, :, 0].ravel(),
    }
    for place, score in enumerate(SCORES):
        for end, values in zip(ENDS, (found.value, found.low, found.high), strict=True):
            columns[f"{score}{end}"] = np.clip(values[:, :, place], 0, 100).ravel()
    return pa.table(columns, schema=PRUNING.columns)
