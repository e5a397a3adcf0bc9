"""Train a question-answering model: `python run_experiment.py --name my-run` (see README.md)."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from qa.config import Settings, read_settings
from qa.errors import UserError
from qa.experiment import Experiment, check_name, experiments_dir
from qa.pocket import POCKET_SETTINGS

HERE = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except UserError as error:
        print(f"run_experiment: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "run_experiment: interrupted; if the experiment exists by now, go on with --resume",
            file=sys.stderr,
        )
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Fine-tune an encoder for question answering; every run is an experiment folder."
    )
    parser.add_argument("--name", help="name of the experiment (asked for in a terminal)")
    parser.add_argument("--config", type=Path, help="settings (default: config.yaml)")
    parser.add_argument(
        "--pocket", action="store_true", help="the bundled model and questions: no network needed"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change one setting"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with this experiment from its last checkpoint"
    )
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="one experiment for each seed")
    parser.add_argument("--experiments-dir", metavar="DIR", help="default: EXPERIMENTS_DIR, or experiments")
    return parser


def _run(options: argparse.Namespace) -> int:
    root = experiments_dir(options.experiments_dir)
    asked = options.name is None
    name = check_name(_ask_name() if asked else options.name)
    exists = (root / name / "config.yaml").exists()
    resume = options.resume or (asked and exists and _ask_resume(Experiment(root / name)))
    if resume:
        _refuse_overrides(options)
        # Training imports torch and transformers, seconds that a mistyped setting should not cost.
        from probes.atlas_snapshots import recorder
        from qa.training import resume_experiment

        experiment = Experiment(root / name)
        watch = recorder(experiment.settings(), experiment) if exists else None
        return _tell([resume_experiment(root=root, name=name, on_evaluation=watch)])
    settings = _settings(options)
    from probes.atlas_snapshots import recorder
    from qa.training import train_experiment, train_seeds

    if options.seeds:
        return _tell(
            train_seeds(
                settings,
                options.seeds,
                root=root,
                name=name,
                on_evaluation_of=lambda own: recorder(settings, Experiment(root / own)),
            ),
            seeds=True,
        )
    watch = recorder(settings, Experiment(root / name))
    return _tell([train_experiment(settings, root=root, name=name, on_evaluation=watch)])


def _settings(options: argparse.Namespace) -> Settings:
    if options.pocket and options.config is not None:
        raise UserError("--pocket brings settings of its own; leave --config out, or change some with --set")
    path = POCKET_SETTINGS if options.pocket else options.config or HERE / "config.yaml"
    return read_settings(path, options.overrides)


def _refuse_overrides(options: argparse.Namespace) -> None:
    if options.overrides or options.pocket or options.seeds or options.config is not None:
        raise UserError(
            "--resume goes on with the settings the experiment has; leave --set, --config, --pocket and "
            "--seeds out, or start a new experiment (--seeds resumes what is unfinished by itself)"
        )


def _ask_name() -> str:
    if not sys.stdin.isatty() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("no name given; add --name NAME")
    try:
        return input("Name of the experiment: ").strip()
    except EOFError as error:
        raise UserError("no name given; add --name NAME") from error


def _ask_resume(experiment: Experiment) -> bool:
    if experiment.state() == "finished":
        return False
    try:
        answer = input(f"{experiment.name!r} exists ({experiment.state()}). Resume it? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _tell(experiments: Sequence[Experiment], *, seeds: bool = False) -> int:
    """Print how each ended; 0 whether finished or stopped, as both are what was asked for.

    Args:
        experiments: that were trained.
        seeds: whether they are seeds of a group, which one command goes on with.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        return 0
    scores: list[tuple[float, float]] = []
    for experiment in experiments:
        if experiment.state() != "finished":
            command = "the same command" if seeds else experiment.resume_command()
            print(f"{experiment.name}: {experiment.state()}; go on with: {command}")
            continue
        metrics = experiment.metrics()
        scores.append((metrics["exact_match"], metrics["f1"]))
        print(
            f"{experiment.name}: EM {metrics['exact_match']:.2f}  F1 {metrics['f1']:.2f}  "
            f"validation loss {metrics['eval_loss']:.3f}  ({metrics['count']} questions)  {experiment.path}"
        )
    if len(scores) > 1:
        for label, values in zip(("EM", "F1"), zip(*scores, strict=True), strict=True):
            mean, deviation = statistics.mean(values), statistics.stdev(values)
            print(f"{label} {mean:.2f} ± {deviation:.2f} (sd over {len(values)} seeds)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
