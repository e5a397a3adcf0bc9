"""Rebuild the bundled model: `python pocket/build.py …` (see pocket/README.md).

A BERT (MiniLM-L6) is carried into the DeBERTa architecture and fine-tuned in stages on SQuADShifts and SQuAD,
first on one gold answer of each question, then on all that people gave. The model is the average of the
weights of some stages (Wortsman et al. 2022, https://arxiv.org/abs/2203.05482), stored in half precision.

Four articles are kept out of all stages but the last: they choose the better of the epochs of a stage, and
what else is tried, averages too, is judged on them. The last stage is trained on them too, for a fixed number
of steps; its weight in the average is judged on pocket's own questions.

The trap: the questions come from the official development set (it is what the project's split was made of),
so only the articles named here may be used, whatever else a file holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from qa.config import Settings, make_settings
from qa.errors import UserError
from qa.experiment import Experiment
from qa.lifting import lift_checkpoint
from qa.model import load_encoder, save_encoder
from qa.pocket import POCKET_MODEL
from qa.training import resume_experiment, train_experiment

HELD_OUT = ["Black_Death", "Force", "Private_school", "Rhine"]
# Taken from the v2.0 file, with the unanswerable questions.
WITH_UNANSWERABLE = [
    "1973_oil_crisis",
    "Black_Death",
    "Civil_disobedience",
    "Construction",
    "Ctenophora",
    "Economic_inequality",
    "Force",
    "French_and_Indian_War",
    "Fresno,_California",
    "Geology",
    "Harvard_University",
    "Huguenot",
    "Immune_system",
    "Imperialism",
    "Intergovernmental_Panel_on_Climate_Change",
    "Jacksonville,_Florida",
    "Normans",
    "Packet_switching",
    "Pharmacy",
    "Prime_number",
    "Private_school",
    "Rhine",
    "Sky_(United_Kingdom)",
]
# Taken from the v1.1 file.
ANSWERABLE_ONLY = [
    "American_Broadcasting_Company",
    "Apollo_program",
    "Chloroplast",
    "Doctor_Who",
    "Genghis_Khan",
    "Kenya",
    "Martin_Luther",
    "Newcastle_upon_Tyne",
    "Nikola_Tesla",
    "Super_Bowl_50",
    "Teacher",
    "United_Methodist_Church",
    "Victoria_and_Albert_Museum",
]
COMMON = {"max_length": 256, "stride": 64, "batch_size": 16, "evaluations_per_epoch": 1}


@dataclass(frozen=True, slots=True)
class Stage:
    """One fine-tuning.

    Attributes:
        name: of the stage, and of its experiment.
        start: earlier stages; it begins with the average of their weights, one named twice counted twice;
            without any with the lifted BERT.
        data: which questions: those of SQuADShifts, of SQuAD or of both, or only those that have an answer.
        settings: what is not in COMMON.
        sets_aside: whether the held-out articles, where the data has them, are kept out of its training.
    """

    name: str
    start: tuple[str, ...]
    data: Literal["shifts", "squad", "both", "answerable", "squad-answerable"]
    settings: dict[str, Any]
    sets_aside: bool = True


# What is learnt from the first gold answer of each question, and the averages that the later stages begin
# with: half of it all-golds, then half of the result squad-all-golds, then a third of the result squad-36.
FIRST_GOLDS = ("squad", "squad-again", "answerable")
WITH_ALL_GOLDS = (*FIRST_GOLDS, *["all-golds"] * 3)
WITH_SQUAD_ALL_GOLDS = (*WITH_ALL_GOLDS, *["squad-all-golds"] * 6)
AVERAGED = (*WITH_SQUAD_ALL_GOLDS, *["squad-36"] * 6)
ALL_GOLDS: dict[str, Any] = {"gold_answers": "all", "learning_rate": 1e-4, "warmup": 0.05}
STAGES = (
    Stage("shifts", (), "shifts", {"epochs": 1, "learning_rate": 2e-4}),
    Stage("squad", ("shifts",), "squad", {"epochs": 2, "learning_rate": 1.5e-4}),
    Stage("both", ("squad",), "both", {"epochs": 1, "learning_rate": 1.5e-4, "warmup": 0.05, "seed": 7}),
    Stage("squad-again", ("both",), "squad", {"epochs": 2, "learning_rate": 1e-4, "seed": 8}),
    Stage(
        "answerable",
        ("squad", "both", "squad-again"),
        "answerable",
        {"epochs": 1, "learning_rate": 1e-4, "warmup": 0.05, "seed": 9},
    ),
    Stage(
        "all-golds",
        FIRST_GOLDS,
        "answerable",
        {**ALL_GOLDS, "epochs": 1, "seed": 11, "evaluations_per_epoch": 2},
    ),
    Stage("squad-all-golds", WITH_ALL_GOLDS, "squad-answerable", {**ALL_GOLDS, "epochs": 2, "seed": 12}),
    Stage(
        "squad-36",
        WITH_SQUAD_ALL_GOLDS,
        "squad-answerable",
        {**ALL_GOLDS, "epochs": 1, "seed": 13},
        sets_aside=False,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is not there yet; the exit status."""
    parser = argparse.ArgumentParser(prog="python pocket/build.py", description="Rebuild pocket/model.")
    parser.add_argument("--bert", type=Path, required=True, help="folder of the MiniLM-L6 checkpoint")
    parser.add_argument("--v1", type=Path, required=True, help="SQuAD v1.1 file with the articles")
    parser.add_argument("--v2", type=Path, required=True, help="SQuAD v2.0 file with the articles")
    parser.add_argument("--shifts", type=Path, nargs="+", required=True, help="SQuADShifts files")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument("--into", type=Path, default=POCKET_MODEL, help="where the model goes")
    options = parser.parse_args(arguments)
    try:
        _build(options)
    except UserError as error:
        print(f"build: {error}", file=sys.stderr)
        return 2
    return 0


def _build(options: argparse.Namespace) -> None:
    if options.into.exists():
        raise UserError(f"{options.into}: exists already; move it away, or give another folder with --into")
    options.work.mkdir(parents=True, exist_ok=True)
    folders = {"lifted": options.work / "lifted"}
    if not folders["lifted"].exists():
        lift_checkpoint(options.bert, folders["lifted"])
    squad = merge_squad(_articles(options.v1), _articles(options.v2))
    shifts = [article for file in options.shifts for article in _articles(file)]
    for name, articles in _data(squad, shifts).items():
        _write(options.work / f"{name}.json", articles)
    for stage in STAGES:
        start = _averaged(
            [folders[name] for name in stage.start or ("lifted",)], options.work / f"before-{stage.name}"
        )
        folders[stage.name] = _trained(options.work, stage, start).model_folder()
    average = _averaged([folders[name] for name in AVERAGED], options.work / "average")
    save_encoder(load_encoder(str(average), "eager"), options.into, dtype=torch.float16)
    print(f"written to {options.into}", file=sys.stderr)


def _data(squad: list[dict[str, Any]], shifts: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The articles of each file that is trained or validated on, by its name."""
    both = [*shifts, *squad]
    return {
        "held-out": [article for article in squad if article["title"] in HELD_OUT],
        "shifts": shifts,
        "squad": squad,
        "both": both,
        "answerable": [_answerable(article) for article in both],
        "squad-answerable": [_answerable(article) for article in squad],
    }


def _answerable(article: dict[str, Any]) -> dict[str, Any]:
    """The article without questions that have no answer, and without paragraphs that have no others."""
    kept = [
        {**paragraph, "qas": [question for question in paragraph["qas"] if question["answers"]]}
        for paragraph in article["paragraphs"]
    ]
    return {**article, "paragraphs": [paragraph for paragraph in kept if paragraph["qas"]]}


def _averaged(models: Sequence[Path], into: Path) -> Path:
    """The folder of a model with the average of the weights; of one model, its own."""
    if len(models) == 1:
        return models[0]
    encoder = load_encoder(str(models[0]), "eager")
    # One that is named several times is read once and counted as often.
    states = [(load_file(model / "model.safetensors"), count) for model, count in Counter(models).items()]
    with torch.no_grad():
        for name, weight in encoder.model.state_dict().items():
            parts = torch.stack([count * state[name].float() for state, count in states])
            weight.copy_(parts.sum(0) / len(models))
    save_encoder(encoder, into)
    return into


def _trained(root: Path, stage: Stage, start: Path) -> Experiment:
    """The finished experiment of a stage: as it is, resumed or trained."""
    experiment = Experiment(root / stage.name)
    if not (experiment.path / "config.yaml").exists():
        train_experiment(_settings(root, stage, start), root=root, name=stage.name)
    elif experiment.state() != "finished":
        resume_experiment(root=root, name=stage.name)
    if experiment.state() != "finished":
        raise UserError(f"{experiment.path} is {experiment.state()}; give the same command again to go on")
    return experiment


def _settings(root: Path, stage: Stage, start: Path) -> Settings:
    if stage.data == "shifts" or not stage.sets_aside:
        validation: dict[str, Any] = {
            "validation_dataset": str(root / "held-out.json"),
            "held_out_articles": 0,
        }
    else:
        validation = {"held_out_articles": HELD_OUT}
    data = {"model_name": str(start), "dataset": str(root / f"{stage.data}.json")}
    return make_settings({**COMMON, **data, **validation, **stage.settings})


def _articles(file: Path) -> list[dict[str, Any]]:
    try:
        articles: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is no SQuAD file ({error}); give the official JSON file") from error
    return articles


def merge_squad(v1: Iterable[dict[str, Any]], v2: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The articles named above, by title, all in the layout of v2.0.

    Args:
        v1: articles of a v1.1 file, perhaps more than are wanted.
        v2: articles of a v2.0 file, perhaps more than are wanted.

    Raises:
        UserError: an article is missing.
    """
    found = {article["title"]: article for article in v2 if article["title"] in WITH_UNANSWERABLE}
    found |= {article["title"]: article for article in v1 if article["title"] in ANSWERABLE_ONLY}
    missing = sorted({*WITH_UNANSWERABLE, *ANSWERABLE_ONLY} - set(found))
    if missing:
        raise UserError(f"{len(missing)} articles are in neither SQuAD file ({missing[0]} first)")
    for article in found.values():
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                question.setdefault("is_impossible", False)
    return [found[title] for title in sorted(found)]


def _write(file: Path, articles: list[dict[str, Any]]) -> None:
    file.write_text(json.dumps({"version": "v2.0", "data": articles}), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
