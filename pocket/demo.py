"""Two real experiments on the bundled model and data: `python -m pocket.demo`, or `make demo-experiments`.

`pocket-base` is the bundled model as it is, `pocket-tuned` the same after some minutes of fine-tuning on the
bundled training questions, its heads recorded on the way. What is there already is kept, and what was
interrupted goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from probes.atlas_snapshots import recorder
from qa.comparison import compare, describe
from qa.config import Settings, read_settings
from qa.errors import UserError
from qa.experiment import Experiment, experiments_dir
from qa.importing import import_model
from qa.pocket import POCKET_SETTINGS
from qa.progress import Bar
from qa.squad import load_questions
from qa.training import resume_experiment, train_experiment

BASE, TUNED = "pocket-base", "pocket-tuned"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing and print the comparison; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pocket.demo", description="Two experiments on pocket, compared: no network needed."
    )
    parser.add_argument("--experiments-dir", metavar="DIR", help="default: EXPERIMENTS_DIR, or experiments")
    options = parser.parse_args(arguments)
    try:
        root = experiments_dir(options.experiments_dir)
        settings = read_settings(POCKET_SETTINGS)
        print(describe(compare(_base(settings, root), _tuned(settings, root))))
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("demo: interrupted; the same command goes on from here", file=sys.stderr)
        return 2
    return 0


def _base(settings: Settings, root: Path) -> Experiment:
    experiment = Experiment(root / BASE)
    if (experiment.path / "config.yaml").exists():
        return _finished(experiment, "remove the folder to make it anew")
    questions = load_questions("pocket", "validation").limited(settings.limit_validation)
    print(f"{BASE}: the bundled model answers {len(questions.questions)} questions", file=sys.stderr)
    with Bar("windows") as bar:
        return import_model("pocket", questions, root=root, name=BASE, settings=settings, progress=bar.at)


def _tuned(settings: Settings, root: Path) -> Experiment:
    experiment = Experiment(root / TUNED)
    if not (experiment.path / "config.yaml").exists():
        print(f"{TUNED}: fine-tunes it on the bundled training questions", file=sys.stderr)
        train_experiment(settings, root=root, name=TUNED, on_evaluation=recorder(settings, experiment))
    elif experiment.state() != "finished":
        before = experiment.settings()
        resume_experiment(root=root, name=TUNED, on_evaluation=recorder(before, experiment))
    return _finished(experiment, "give the same command again to go on, or remove the folder to begin anew")


def _finished(experiment: Experiment, advice: str) -> Experiment:
    if experiment.state() != "finished":
        raise UserError(f"{experiment.path} is {experiment.state()}; {advice}")
    return experiment


if __name__ == "__main__":
    sys.exit(main())
