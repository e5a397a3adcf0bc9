"""Experiments to be asked, for tests of pages: two tiny DeBERTas, a BERT, and predictions without a model."""

from pathlib import Path

import small_runs
import tiny
import tiny_models
from qa.config import make_settings
from qa.importing import import_model, import_predictions
from qa.squad import load_questions

QUESTION, CONTEXT = "Who wrote the first book?", " ".join(tiny.SENTENCES[:4])
HOSTILE = "<b>The</b> **cat** $x$ :smile: sat on the \u200bmat\u202e in <script>alert(1)</script> Denver."


def furnish(root: Path) -> Path:
    """`tiny`, `other` (other weights), `bert`, and `predictions`, on the same eight questions."""
    folder = root.parent
    folder.mkdir(parents=True, exist_ok=True)
    questions = load_questions(str(small_runs.write_questions(folder / "q.json", paragraphs=4, seed=5)))
    values = {"stride": 16, "max_length": 96, "max_question_length": 32, "device": "cpu", "n_best": 5}
    for seed, (name, architecture) in enumerate(
        {"tiny": "deberta-v2", "other": "deberta-v2", "bert": "bert"}.items()
    ):
        model = tiny_models.save(folder / f"{name}-model", architecture, seed=seed)
        settings = make_settings(values | {"no_answer_threshold": None})
        import_model(str(model), questions, root=root, name=name, settings=settings)
    answers = {question.id: "red" for question in questions.questions}
    import_predictions(answers, questions, root=root, name="predictions", source="a test")
    return root


def run(page):
    """The page after what was done to it."""
    page.run()
    assert not page.exception
    return page
