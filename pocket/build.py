"""Rebuild the bundled model: `python pocket/build.py …` (see pocket/README.md).

A BERT (MiniLM-L6) is carried into the DeBERTa architecture, fine-tuned for one epoch on SQuADShifts, then for
two on SQuAD, and stored in half precision. Four articles are kept out of the training: they choose the better
of the epochs and the no-answer threshold, and what else is tried is judged on them.

The trap: the questions come from the official development set (it is what the project's split was made of),
so only the articles named here may be used, whatever else a file holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

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
FIRST = {"epochs": 1, "learning_rate": 2e-4, "held_out_articles": 0}
SECOND = {"epochs": 2, "learning_rate": 1.5e-4, "held_out_articles": HELD_OUT}


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
    lifted = options.work / "lifted"
    if not lifted.exists():
        lift_checkpoint(options.bert, lifted)
    squad = merge_squad(_articles(options.v1), _articles(options.v2))
    files = {"squad": options.work / "squad.json", "shifts": options.work / "shifts.json"}
    _write(files["squad"], squad)
    _write(files["shifts"], [article for file in options.shifts for article in _articles(file)])
    held_out = options.work / "held-out.json"
    _write(held_out, [article for article in squad if article["title"] in HELD_OUT])
    data = {"dataset": str(files["shifts"]), "validation_dataset": str(held_out)}
    first = _trained(options.work, "shifts", {"model_name": str(lifted), **data, **FIRST})
    data = {"dataset": str(files["squad"])}
    second = _trained(options.work, "squad", {"model_name": str(first.model_folder()), **data, **SECOND})
    save_encoder(load_encoder(str(second.model_folder()), "eager"), options.into, dtype=torch.float16)
    print(f"written to {options.into}", file=sys.stderr)


def _trained(root: Path, name: str, values: dict[str, Any]) -> Experiment:
    """The finished experiment: as it is, resumed or trained."""
    experiment = Experiment(root / name)
    settings: Settings = make_settings({**COMMON, **values})
    if not (experiment.path / "config.yaml").exists():
        train_experiment(settings, root=root, name=name)
    elif experiment.state() != "finished":
        resume_experiment(root=root, name=name)
    if experiment.state() != "finished":
        raise UserError(f"{experiment.path} is {experiment.state()}; give the same command again to go on")
    return experiment


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
