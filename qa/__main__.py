"""The commands `python -m qa list | answer | evaluate | compare | score | import`.

Results go to standard output, messages and progress to standard error; `--json` prints one JSON object as the
last line of standard output. Exit status 0, or 2 with one line that says what is wrong. The trap: torch and
transformers take seconds to import, so commands that do not need them (`list`, `compare`, `score`) must not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qa.commands import count_of, run
from qa.config import make_settings, parse_overrides
from qa.errors import UserError
from qa.experiment import (
    FINGERPRINT,
    Experiment,
    experiments_dir,
    find_experiment,
    list_experiments,
    read_dataset,
)
from qa.hints import no_experiments
from qa.metrics import Scores, read_predictions, score
from qa.printing import decimal, visible
from qa.progress import Bar
from qa.squad import QuestionSet, load_questions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    return run("qa", _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qa", description="Ask, evaluate and compare experiments."
    )
    commands = parser.add_subparsers(dest="name_of_command", required=True, metavar="COMMAND")

    _command(commands, "list", _list, "one line an experiment")

    answer = _command(commands, "answer", _answer, "answer a question with an experiment's model")
    answer.add_argument("experiment")
    answer.add_argument("--question", required=True)
    answer.add_argument("--context", required=True, help="the text to look in")

    evaluate = _command(commands, "evaluate", _evaluate, "score an experiment's model on other data")
    evaluate.add_argument("experiment")
    evaluate.add_argument(
        "--dataset",
        required=True,
        help="SQuAD JSON file, hub name, pocket, or the fingerprint of a set kept beside the experiments",
    )
    evaluate.add_argument(
        "--limit", type=count_of, help="only about this many questions, in whole paragraphs"
    )

    comparing = _command(commands, "compare", _compare, "two experiments on the same questions")
    comparing.add_argument("experiment", help="the reference")
    comparing.add_argument("other")
    comparing.add_argument(
        "--dataset", help="data that both were evaluated on, as for evaluate (default: their validation set)"
    )
    comparing.add_argument("--limit", type=count_of, help="as for evaluate")

    scoring = _command(commands, "score", _score, "score a {id: text} file as the official script does")
    scoring.add_argument("--dataset", required=True, help="SQuAD JSON file, hub name or pocket")
    scoring.add_argument(
        "--predictions", required=True, type=Path, help="JSON file {question id: answer text}"
    )

    importing = _command(commands, "import", _import, "an experiment folder from predictions or a checkpoint")
    importing.add_argument("experiment", help="name of the new experiment")
    importing.add_argument("--dataset", required=True, help="SQuAD JSON file, hub name or pocket")
    source = importing.add_mutually_exclusive_group(required=True)
    source.add_argument("--predictions", type=Path, help="JSON file {question id: answer text}")
    source.add_argument("--model", help="hub name or folder of a question-answering checkpoint, or pocket")
    importing.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change one setting"
    )
    return parser


def _command(commands: Any, name: str, function: Any, help: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    command.set_defaults(command=function)
    command.add_argument("--experiments-dir", metavar="DIR", help="default: EXPERIMENTS_DIR, or experiments")
    command.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return command


def _find(options: argparse.Namespace, name: str | None = None) -> Experiment:
    root = experiments_dir(options.experiments_dir)
    return find_experiment(root, options.experiment if name is None else name)


def _list(options: argparse.Namespace) -> None:
    root = experiments_dir(options.experiments_dir)
    experiments = list_experiments(root)
    if not experiments:
        _tell(no_experiments(root))
    if options.json:
        _print_json({"experiments": [_described(experiment) for experiment in experiments]})
        return
    for experiment in experiments:
        print(_line(experiment))


def _described(experiment: Experiment) -> dict[str, Any]:
    """What the line says of it, for programs; scores of a finished one that is whole."""
    problems = experiment.problems()
    found = {"name": experiment.name, "state": "broken" if problems else experiment.state()}
    if problems:
        return {**found, "problems": problems}
    found["model"] = experiment.settings().model_name
    found["data"] = experiment.environment().get("data", {}).get("validation", {}).get("name")
    return found if found["state"] != "finished" else {**found, "metrics": experiment.metrics()}


def _line(experiment: Experiment) -> str:
    state = experiment.state()
    problems = experiment.problems()
    if problems:
        return f"{experiment.name:<24} {'broken':<12} {problems[0]}"
    detail = experiment.status().get("message") or ""
    if state == "finished":
        metrics = experiment.metrics()
        data = experiment.environment().get("data", {}).get("validation", {})
        detail = (
            f"EM {metrics['exact_match']:6.2f}  F1 {metrics['f1']:6.2f}  "
            f"{metrics['count']:>6} questions of {data.get('name', '?')}"
        )
    return f"{experiment.name:<24} {state:<12} {detail}  [{experiment.settings().model_name}]"


def _answer(options: argparse.Namespace) -> None:
    experiment = _find(options)
    _refuse_blank(options)
    from qa.reader import Reader

    with Bar("windows") as bar:
        reader = Reader.of(experiment)
        answer = reader.answer(options.question, options.context, progress=bar.at)
    if options.json:
        keys = ("text", "start", "end", "probability", "no_answer_probability")
        found = {key: getattr(answer, key) for key in keys}
        _print_json({**found, "no_answer_threshold": reader.threshold})
        return
    print(visible(answer.text) or "(no answer)")
    probability, none = decimal(answer.probability, 3), decimal(answer.no_answer_probability, 3)
    if answer.text or reader.threshold is None:
        _tell(f"probability {probability}, no answer {none}")
    else:
        _tell(f"no answer {none}: it refuses above {decimal(reader.threshold, 3)}")


def _refuse_blank(options: argparse.Namespace) -> None:
    for name in ("question", "context"):
        if not getattr(options, name).strip():
            raise UserError(f"--{name}: it is empty; give some text")


def _evaluate(options: argparse.Namespace) -> None:
    experiment = _find(options)
    experiment.model_folder()
    root = experiment.path.parent
    questions = _questions(options.dataset, root).limited(options.limit)
    from qa.evaluation import Prepared, evaluate
    from qa.reader import Reader
    from qa.run import keep_dataset
    from qa.window_cache import WINDOWS_FOLDER

    reader = Reader.of(experiment)
    prepared = Prepared.of(questions, reader.encoder.tokenizer, reader.reading, kept=root / WINDOWS_FOLDER)
    if questions.version == "2.0":
        _tell_threshold(experiment, reader.threshold, questions)
    with Bar("windows") as bar:
        found = evaluate(
            reader.encoder, prepared, reader.reading, threshold=reader.threshold, progress=bar.at
        )
    metrics = {**found.metrics(), "dataset": questions.name}
    folder = experiment.write_evaluation(keep_dataset(root, questions), metrics, found.rows())
    _tell(f"written to {folder}")
    _report(found.scores, options, intervals=metrics)


def _questions(source: str, root: Path) -> QuestionSet:
    """What `--dataset` names; a fingerprint is of a copy kept beside the experiments."""
    if FINGERPRINT.fullmatch(source):
        return read_dataset(root, source, "")
    return load_questions(source, "validation")


def _tell_threshold(experiment: Experiment, threshold: float | None, questions: QuestionSet) -> None:
    """Say what the no-answer threshold of an evaluation is worth."""
    if threshold is None:
        _tell(f"{experiment.name} has no no-answer threshold: it answers every question")
    elif experiment.settings().no_answer_threshold != "tune":
        return
    elif experiment.environment().get("data", {}).get("validation", {}).get("sha256") == questions.sha256():
        _tell(
            f"these are the questions that the no-answer threshold of {experiment.name} was tuned on, so the "
            "scores flatter it; metrics.json has the ones whose thresholds were tuned on other questions"
        )


def _compare(options: argparse.Namespace) -> None:
    first, second = _find(options), _find(options, options.other)
    from qa.comparison import compare, describe

    if options.limit is not None and options.dataset is None:
        raise UserError("--limit has a meaning with --dataset only; leave it out or name the data")
    questions = (
        None
        if options.dataset is None
        else _questions(options.dataset, first.path.parent).limited(options.limit)
    )
    found = compare(first, second, questions)
    if not options.json:
        print(describe(found))
        return
    rows = {
        row.metric: {
            "count": row.count,
            "first": row.first,
            "second": row.second,
            "difference": row.difference,
            "interval": row.interval,
        }
        for row in found.differences
    }
    right = dict(zip(("both", "first", "second", "neither"), found.right, strict=True))
    _print_json({"experiments": found.names, "metrics": rows, "right": right, "p_value": found.p_value})


def _score(options: argparse.Namespace) -> None:
    questions = load_questions(options.dataset, "validation")
    scores = score(questions.questions, read_predictions(options.predictions), version=questions.version)
    _tell_ids(scores)
    _report(scores, options)


def _import(options: argparse.Namespace) -> None:
    root = experiments_dir(options.experiments_dir)
    settings = make_settings(parse_overrides(options.overrides))
    if options.predictions is not None and options.overrides:
        raise UserError("--set has no meaning for predictions; leave it out or import a --model")
    questions = load_questions(options.dataset, "validation")
    from qa.importing import import_model, import_predictions

    if options.predictions is not None:
        experiment, scores = import_predictions(
            read_predictions(options.predictions),
            questions,
            root=root,
            name=options.experiment,
            source=options.predictions.name,
        )
        _tell_ids(scores)
    else:
        with Bar("windows") as bar:
            experiment = import_model(
                options.model,
                questions,
                root=root,
                name=options.experiment,
                settings=settings,
                progress=bar.at,
            )
    _tell(f"written to {experiment.path}")
    _report_metrics(experiment.metrics(), options)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _tell_ids(scores: Scores) -> None:
    for ids, what in (
        (scores.missing, "without a prediction score 0"),
        (scores.extra, "are not in the data"),
    ):
        if ids:
            _tell(
                f"{len(ids)} ids {what} ({', '.join(map(visible, ids[:3]))}{', ...' if len(ids) > 3 else ''})"
            )


def _report(
    scores: Scores, options: argparse.Namespace, *, intervals: Mapping[str, Any] | None = None
) -> None:
    _report_metrics({**scores.as_dict(), **(intervals or {})}, options)


def _report_metrics(metrics: Mapping[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        _print_json(metrics)
        return
    for name in ("exact_match", "f1"):
        interval = metrics.get(f"{name}_interval")
        between = f"  (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        print(f"{name:<22}{metrics[name]:8.3f}{between}")
    for name in (
        "HasAns_exact_match",
        "HasAns_f1",
        "HasAns_count",
        "NoAns_exact_match",
        "NoAns_f1",
        "NoAns_count",
    ):
        if name in metrics:
            print(
                f"{name:<22}{metrics[name]:8.3f}" if "count" not in name else f"{name:<22}{metrics[name]:8}"
            )
    print(f"{'count':<22}{metrics['count']:8}")


def _print_json(value: Mapping[str, Any]) -> None:
    # ASCII, as standard output may not be UTF-8, and an answer may hold what UTF-8 cannot.
    print(json.dumps(value, ensure_ascii=True))


if __name__ == "__main__":
    sys.exit(main())
