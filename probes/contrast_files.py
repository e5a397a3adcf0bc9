"""The tables of `python -m probes contrast`: their columns, how to find them again, and what they say.

One has a row for each question and method, the other the means over questions with intervals. The trap: a
page that draws them need not load a model for it, so this module computes nothing that does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from probes.analyses import Header, Kind, checkpoint_fingerprint, find_analyses, read_analysis
from qa.errors import UserError
from qa.experiment import Experiment
from qa.printing import listed
from qa.squad import QuestionSet

METHODS = {
    "attention": "raw attention",
    "rollout": "attention rollout",
    "value_norm": "value-norm attention",
    "attention_x_gradient": "attention × gradient",
    "integrated_gradients": "integrated gradients",
}
RANDOM = "random"
LABELS = METHODS | {RANDOM: "random rankings"}
SIGNS = {"comprehensiveness": 1, "sufficiency": -1}  # of the better direction
MEASURES = tuple(SIGNS)
BETTER = {"comprehensiveness": "higher is better", "sufficiency": "lower is better"}
SHARES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)  # `probes.faithfulness.SHARES`, which needs torch
TOLERANCE = 0.01  # of integrated gradients: enough to rank words by
RANDOM_RANKINGS = 3
COMMAND = "python -m probes contrast NAME"

ROWS = Kind(
    "contrast",
    1,
    pa.schema(
        [
            ("id", pa.string()),
            ("paragraph", pa.string()),
            ("method", pa.string()),
            ("probability", pa.float64()),
            ("words", pa.int32()),
            ("comprehensiveness", pa.float64()),
            ("sufficiency", pa.float64()),
            ("steps", pa.int32()),
            ("delta_share", pa.float64()),
        ]
    ),
    COMMAND,
)
# 1: had no distances to the best method.
SUMMARY = Kind(
    "contrast_summary",
    2,
    pa.schema(
        [
            ("method", pa.string()),
            ("measure", pa.string()),
            ("mean", pa.float64()),
            ("low", pa.float64()),
            ("high", pa.float64()),
            ("over_random", pa.float64()),
            ("over_random_low", pa.float64()),
            ("over_random_high", pa.float64()),
            ("behind_best", pa.float64()),
            ("behind_best_low", pa.float64()),
            ("behind_best_high", pa.float64()),
            ("count", pa.int32()),
        ]
    ),
    COMMAND,
)


def header_of(kind: Kind, experiment: Experiment, questions: QuestionSet) -> Header:
    """What a table of this experiment and these questions is of.

    Raises:
        UserError: the experiment has no model.
    """
    about = {
        "dataset": questions.name,
        "sha256": questions.sha256(),
        "questions": len(questions.questions),
        "shares": list(SHARES),
        "random": RANDOM_RANKINGS,
        "tolerance": TOLERANCE,
    }
    return Header(kind, checkpoint_fingerprint(experiment.model_folder()), about)


@dataclass(frozen=True, slots=True)
class Summary:
    """What was found over a data set.

    Attributes:
        path: of the summary's file.
        rows_path: of the table with a row for each question and method.
        about: see `probes.analyses.Header`.
        rows: of the summary.
    """

    path: Path
    rows_path: Path
    about: Mapping[str, Any]
    rows: list[dict[str, Any]]


def read_summaries(experiment: Experiment) -> tuple[list[Summary], list[str]]:
    """The summaries of an experiment's model, newest first, and what is wrong with the others, a line each.

    Raises:
        UserError: the experiment has no model.
    """
    paths = find_analyses(experiment, SUMMARY)
    if not paths:
        return [], []
    model = checkpoint_fingerprint(experiment.model_folder())
    found, problems = [], []
    for path in paths:
        try:
            read = read_analysis(path, SUMMARY, model=model)
        except UserError as error:
            problems.append(str(error))
            continue
        rows_path = path.with_name(Header(ROWS, model, read.about).file_name)
        found.append(Summary(path, rows_path, read.about, read.table.to_pylist()))
    return found, problems


def finding(rows: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on the rows of a summary; it hedges where paired differences do not tell methods apart."""
    of_measure = {
        measure: {row["method"]: row for row in rows if row["measure"] == measure} for measure in MEASURES
    }
    said = []
    for measure, sign in SIGNS.items():
        methods = [row for name, row in of_measure[measure].items() if name != RANDOM]
        best = min(methods, key=lambda row: row["behind_best"])
        alike = [
            LABELS[row["method"]]
            for row in sorted(methods, key=lambda row: row["behind_best"])
            if row is not best and row["behind_best_low"] is not None and row["behind_best_low"] <= 0
        ]
        text = f"By {measure} ({BETTER[measure]}) {LABELS[best['method']]} is the most faithful"
        if best["low"] is None:
            said.append(f"{text}, but with one paragraph there is no telling how sure that is.")
        elif sign * (best["over_random_low"] if sign > 0 else best["over_random_high"]) <= 0:
            said.append(f"{text}, though not surely better than chance.")
        elif alike:
            said.append(f"{text}, though it cannot be told apart from {listed(alike)}.")
        else:
            said.append(f"{text}, clear of all others.")
    return " ".join(said)
