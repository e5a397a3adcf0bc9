"""Finished experiments to compare, without a training: settings, history, scores and answers."""

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folders
from qa.config import Settings
from qa.evaluation import scores_with_intervals
from qa.experiment import Experiment
from qa.metrics import score
from qa.run import keep_dataset, open_run
from qa.squad import Question, QuestionSet

SIZES = (100, 200, 400, 700, 1000, 2000, 4000, 6000, 8000, 10_000)
# HTML, Markdown, mathematics, emoji, an expression, zero width, right to left, a control character.
HARM = (
    "<img src=x onerror=alert(1)> **bold** [a](http://b) $x^2$ :smile: datum.value \u200b\u202eabc\x07 שלום"
)


def answers(questions: QuestionSet, *, share: float, seed: int) -> dict[str, str]:
    """A gold answer (or none where there is none) for about this share, else a word of the context."""
    draw = random.Random(seed)
    return {
        question.id: (question.answers[0] if question.answers else "")
        if draw.random() < share
        else draw.choice(question.context.split())
        for question in questions.questions
    }


def rows(questions: QuestionSet, predictions: dict[str, str]) -> list[dict[str, Any]]:
    """What `predictions.jsonl` holds of them; each context is said to be read in one to three windows."""
    found = score(questions.questions, predictions, version=questions.version)
    return [
        {
            "id": question.id,
            "prediction": predictions[question.id],
            **_place(question, predictions[question.id]),
            "probability": 0.5 + number % 50 / 100,
            "no_answer_probability": 0.25,
            "exact_match": float(found.exact_matches[number]),
            "f1": float(found.f1s[number]),
            "windows": 1 + len(question.context) % 3,
        }
        for number, question in enumerate(questions.questions)
    ]


def _place(question: Question, text: str) -> dict[str, int]:
    start = max(0, question.context.find(text))
    return {"start": start, "end": start + len(text)}


def trained(
    root: Path,
    name: str,
    questions: QuestionSet,
    *,
    share: float,
    seed: int = 0,
    steps: int = 12,
    **changes: Any,
) -> Experiment:
    """A finished experiment as `run_experiment.py` leaves one, but without a model.

    Args:
        root: the folder of experiments.
        name: of the experiment.
        questions: it is scored on.
        share: of them that it answers right, about.
        seed: of its answers.
        steps: rows of its history; none for 0.
        changes: settings that are not the defaults.
    """
    predictions = answers(questions, share=share, seed=seed)
    scores = score(questions.questions, predictions, version=questions.version)
    metrics = {**scores_with_intervals(scores, questions), "eval_loss": 1.5}
    data = {"validation": questions.describe()}
    with open_run(root, name) as run:
        run.begin(Settings(**{"seed": seed} | changes), {"data": data, "processes": 1, "precision": "fp32"})
        keep_dataset(root, questions)
        for step in range(1, steps + 1):
            run.append_history(_history(step, metrics["f1"], seed))
        run.finish(metrics, rows(questions, predictions))
    return Experiment(root / name)


def _history(step: int, f1: float, seed: int) -> dict[str, Any]:
    row = {"step": 10 * step, "epoch": step / 6, "loss": 3 / step + seed / 50, "learning_rate": 1e-4 / step}
    scored = {"f1": f1 * (1 - 0.6**step), "exact_match": 0.9 * f1 * (1 - 0.6**step), "eval_loss": 2 / step}
    return row | {"examples_per_second": 12.5 + seed} | (scored if step % 2 == 0 else {})


def hostile(count: int = 4) -> QuestionSet:
    """Questions whose every text would do harm, or vanish, if it were taken for anything but text."""
    questions = []
    for number in range(count):
        context = f"{HARM} number {number} ends."
        answer = HARM if number % 2 else "number"
        questions.append(
            Question(
                id=f"<b>{number}</b>",
                title="# $title$ :smile:",
                paragraph=f"p/{number}",
                question=f"What is {HARM}?",
                context=context,
                answers=(answer,),
                starts=(context.index(answer),),
            )
        )
    return QuestionSet("<i>$hostile$</i> :smile:.json", "1.1", tuple(questions), ())


def many(root: Path, *, count: int = 1000, sizes: Sequence[int] = SIZES) -> Path:
    """So many experiments, the last 20 broken in different ways; each data set has two files of answers.

    Predictions are hard links to those files. Experiments 0 and 1 are on the first data, 2 and 3 on the next.
    """
    pool = root.parent / "pool"
    patterns = []
    for number, size in enumerate(sizes):
        questions = numbered(size)
        for share in (0.5, 0.6):
            name = f"pattern-{number}-{share}"
            patterns.append(trained(pool, name, questions, share=share, seed=number, steps=3).path)
    shutil.copytree(pool / ".datasets", root / ".datasets")
    for number in range(count):
        folder, pattern = root / f"run-{number:04}", patterns[number % len(patterns)]
        shutil.copytree(pattern, folder, ignore=shutil.ignore_patterns("predictions.jsonl", ".lock"))
        os.link(pattern / "predictions.jsonl", folder / "predictions.jsonl")
    for number, kind in enumerate(folders.BREAKING):
        folder = root / f"run-{count - 1 - number:04}"
        # A link must not be written through.
        (folder / "predictions.jsonl").unlink()
        (folder / "predictions.jsonl").write_text("")
        folders.BREAKING[kind](folder)
    return root


def numbered(size: int) -> QuestionSet:
    """Short questions about short texts, five a text."""
    questions = []
    for number in range(size):
        text = number // 5
        context = f"Text {text} says that the answer to {number % 5} is word{text} and nothing else."
        gold = f"word{text}"
        asked, place = f"What is {number}?", (context.index(gold),)
        questions.append(Question(str(number), f"t{text}", f"t{text}/0", asked, context, (gold,), place))
    return QuestionSet(f"numbered-{size}.json", "1.1", tuple(questions), ())
