"""The command `python -m probes contrast NAME`: which ranking of words is true to an experiment's model."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from qa.commands import count_of
from qa.experiment import experiments_dir, find_experiment
from qa.progress import Bar
from qa.squad import load_questions


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    about = "how faithful attention and gradients are to a model, over a whole data set"
    parser: argparse.ArgumentParser = commands.add_parser("contrast", help=about, description=about)
    parser.set_defaults(command=run)
    parser.add_argument("experiment")
    parser.add_argument("--dataset", help="SQuAD JSON file, hub name or pocket (default: its validation set)")
    parser.add_argument("--limit", type=count_of, help="only about this many questions, in whole paragraphs")
    parser.add_argument("--experiments-dir", metavar="DIR", help="default: EXPERIMENTS_DIR, or experiments")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(options: argparse.Namespace) -> None:
    """Make both tables, or what is missing of them, and say what they show."""
    experiment = find_experiment(experiments_dir(options.experiments_dir), options.experiment)
    experiment.model_folder()
    if options.dataset is None:
        questions = experiment.validation_questions()
    else:
        questions = load_questions(options.dataset, "validation")
    from probes.contrast import contrast
    from probes.contrast_files import LABELS, finding

    with Bar("questions") as bar:
        made = contrast(experiment, questions.limited(options.limit), progress=bar.at)
    print(f"written to {made.path} and {made.rows_path}", file=sys.stderr)
    rows = made.rows
    sentence = finding(rows)
    if options.json:
        summary = {f"{row['method']}_{row['measure']}": _numbers(row) for row in rows}
        print(json.dumps({"finding": sentence, "count": rows[0]["count"], **summary}))
        return
    for measure in dict.fromkeys(row["measure"] for row in rows):
        print(measure)
        for row in rows:
            if row["measure"] == measure:
                print(f"  {LABELS[row['method']]:<24}{row['mean']:7.3f}{_between(row)}")
    print(sentence)


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    interval = None if row["low"] is None else [row["low"], row["high"]]
    return {"mean": row["mean"], "interval": interval, "over_random": row["over_random"]}


def _between(row: dict[str, Any]) -> str:
    return "" if row["low"] is None else f"  (95 % interval {row['low']:.3f} to {row['high']:.3f})"
