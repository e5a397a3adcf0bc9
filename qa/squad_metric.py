"""The official SQuAD scores as an `evaluate.Metric` that needs no network.

`evaluate.load("squad")` downloads a script and fails offline; this is the same interface over `qa.metrics`.
It is apart from `qa.metrics` because importing `evaluate` brings in torch and takes seconds.
The trap: `evaluate` makes a cache folder in the user's home even for a metric kept in memory.
"""

from typing import Any

import datasets
import evaluate

from qa.errors import UserError
from qa.metrics import check_version, first_repeated, score
from qa.squad import Question


class SquadMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """Exact match and F1 by the official script of the version given as `config_name`, "1.1" or "2.0".

    `compute(predictions=[{"id", "prediction_text"}], references=[{"id", "answers": {"text": [...],
    "answer_start": [...]}}])` returns the keys of `qa.metrics.Scores.as_dict`. The two lists are joined by id
    and have the same length.

    Raises:
        UserError: an unknown version; from `compute`, empty lists or a repeated id.
    """

    def __init__(self, config_name: str, *, keep_in_memory: bool = True, **options: Any) -> None:
        check_version(config_name)
        super().__init__(config_name, keep_in_memory=keep_in_memory, **options)

    def _build_data_dir(self) -> str:
        return "" if self.keep_in_memory else super()._build_data_dir()

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=f"Exact match and F1 as the official SQuAD v{self.config_name} script computes them.",
            citation="Rajpurkar et al. 2016 (v1.1), Rajpurkar, Jia and Liang 2018 (v2.0)",
            inputs_description="predictions: id, prediction_text; references: id, answers",
            features=datasets.Features(
                {
                    "predictions": {"id": text, "prediction_text": text},
                    "references": {
                        "id": text,
                        "answers": {
                            "text": datasets.List(text),
                            "answer_start": datasets.List(datasets.Value("int32")),
                        },
                    },
                }
            ),
        )

    def _compute(
        self, *, predictions: list[dict[str, Any]], references: list[dict[str, Any]]
    ) -> dict[str, float]:
        repeated = first_repeated(row["id"] for row in predictions)
        if repeated is not None:
            raise UserError(
                f"predictions: question id {repeated!r} occurs twice; keep one answer per question"
            )
        texts = {row["id"]: row["prediction_text"] for row in predictions}
        return score([_question(row) for row in references], texts, version=self.config_name).as_dict()


def _question(row: dict[str, Any]) -> Question:
    """A reference as far as scoring needs it: the id and the gold answers."""
    answers = row["answers"]
    return Question(
        id=row["id"],
        title="",
        paragraph="",
        question="",
        context="",
        answers=tuple(answers["text"]),
        starts=tuple(answers["answer_start"]),
    )
