"""Experiment folders from work done elsewhere: somebody's predictions, or an existing checkpoint.

Both end as finished experiments, so that everything that compares experiments can compare them. The trap:
predictions are only texts. Where one stands in the context is unknown if it occurs twice, and there are no
probabilities; what is unknown is null, never guessed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qa import files
from qa.config import Settings, make_settings
from qa.errors import UserError
from qa.evaluation import Prepared, evaluate, scores_with_intervals
from qa.experiment import Experiment, check_name
from qa.hardware import choose_device, describe_environment, peak_memory_mb
from qa.metrics import Scores, score
from qa.model import load_encoder, longest_input, save_encoder, tokenizer_fingerprint
from qa.printing import visible
from qa.reader import reading_of
from qa.run import Run, keep_dataset, open_run
from qa.squad import Question, QuestionSet
from qa.window_cache import WINDOWS_FOLDER
from qa.windows import Progress


def import_predictions(
    predictions: Mapping[str, str], questions: QuestionSet, *, root: Path, name: str, source: str
) -> tuple[Experiment, Scores]:
    """A finished experiment without a model, from a `{id: text}` mapping.

    Args:
        predictions: answer texts, "" for no answer.
        questions: what was asked.
        root: the folder of experiments.
        name: a name that is not taken.
        source: where the predictions come from, for people.

    Raises:
        UserError: the name is taken or not allowed.
    """
    _refuse_taken(root, name)
    scores = score(questions.questions, predictions, version=questions.version)
    settings = make_settings(
        {"model_name": visible(f"predictions of {source}"), "validation_dataset": visible(questions.name)}
    )
    with _new_run(root, name) as run:
        run.begin(
            settings,
            {"imported": "predictions", "source": source, "data": {"validation": questions.describe()}},
        )
        keep_dataset(root, questions)
        metrics = {**scores_with_intervals(scores, questions), "eval_loss": None}
        run.finish(metrics, _prediction_rows(predictions, questions, scores))
    return Experiment(root / name), scores


def import_model(
    source: str,
    questions: QuestionSet,
    *,
    root: Path,
    name: str,
    settings: Settings,
    progress: Progress | None = None,
) -> Experiment:
    """A finished experiment from an existing checkpoint, evaluated; the model is copied into it.

    Args:
        source: hub name or folder of a question-answering checkpoint, or pocket.
        questions: the validation questions.
        root: the folder of experiments.
        name: a name that is not taken.
        settings: lengths, batch size, threshold; `max_length` is lowered to what the model reads.
        progress: called with (windows done, windows in all).

    Raises:
        UserError: the name is taken, or the checkpoint has no trained head.
    """
    _refuse_taken(root, name)
    if settings.best_model_path is not None:
        raise UserError("best_model_path: an imported model goes into the experiment; leave the setting out")
    started = time.monotonic()
    device = choose_device(settings.device)
    encoder = load_encoder(source, settings.attention, device=device, check_head=True)
    settings = settings.changed(
        model_name=str(Path(source).resolve()) if Path(source).is_dir() and source != "pocket" else source,
        validation_dataset=visible(questions.name),
        max_length=min(settings.max_length, longest_input(encoder.model)),
    )
    reading = reading_of(settings)
    prepared = Prepared.of(questions, encoder.tokenizer, reading, kept=root / WINDOWS_FOLDER)
    # All that can fail comes before the folder is made.
    found = evaluate(encoder, prepared, reading, threshold=settings.no_answer_threshold, progress=progress)
    with _new_run(root, name) as run:
        run.begin(
            settings,
            {
                **describe_environment(device, "fp32"),
                "imported": "model",
                "source": source,
                "data": {"validation": questions.describe()},
                "tokenizer_sha256": tokenizer_fingerprint(encoder.tokenizer),
            },
        )
        keep_dataset(root, questions)
        run.publish_model(lambda place: save_encoder(encoder, place), run.path / "best_model")
        metrics = {
            **found.metrics(),
            "seconds": round(time.monotonic() - started, 1),
            "peak_memory_mb": round(peak_memory_mb(device), 1),
        }
        run.finish(metrics, found.rows())
    return Experiment(root / name)


@contextmanager
def _new_run(root: Path, name: str) -> Iterator[Run]:
    """A run for an import. One that fails leaves no folder: it cannot go on, and the name is free again."""
    began = False
    try:
        with open_run(root, name) as run:
            began = True
            yield run
    except BaseException:
        if began:
            files.remove(root / name)
        raise


def _refuse_taken(root: Path, name: str) -> None:
    if (root / check_name(name) / "config.yaml").exists():
        raise UserError(f"experiment {name!r} exists already; choose another name")


def _prediction_rows(
    predictions: Mapping[str, str], questions: QuestionSet, scores: Scores
) -> Iterator[dict[str, Any]]:
    for index, question in enumerate(questions.questions):
        text = predictions.get(question.id)
        start, end = _place(question, text)
        yield {
            "id": question.id,
            "prediction": text,
            "start": start,
            "end": end,
            "probability": None,
            "no_answer_probability": None,
            "exact_match": float(scores.exact_matches[index]),
            "f1": float(scores.f1s[index]),
            "window": None,
            "windows": None,
            "n_best": [],
        }


def _place(question: Question, text: str | None) -> tuple[int | None, int | None]:
    """Where the text stands in the context, if that is certain."""
    if text == "":
        return 0, 0
    if text is None or question.context.count(text) != 1:
        return None, None
    start = question.context.index(text)
    return start, start + len(text)
