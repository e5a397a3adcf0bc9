"""The command `python -m probes atlas NAME`: what every head does, over a data set.

Also under `torchrun --nproc-per-node 2 -m probes atlas NAME` or `accelerate launch --multi_gpu
--num_processes 2 -m probes atlas NAME`, whose processes share the work; the first of them speaks. The trap:
without `--multi_gpu`, which needs no GPU, accelerate starts a single process, whatever number is asked for.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa.commands import count_of
from qa.experiment import Experiment, experiments_dir, find_experiment
from qa.exports import rows_of
from qa.progress import Bar
from qa.squad import QuestionSet, load_questions
from qa.windows import Progress

if TYPE_CHECKING:
    from probes.atlas_files import Atlas

MOST_HEADS, MOST_OF_PART = 8, 3  # listed as the most important ones, over all questions and over a part
STAGES = {
    "heads": "reading each question, and again without each head",
    "pruning": "removing heads one after another",
    "difference": "comparing maps head by head",
}


def add_parser(commands: Any) -> None:
    """The command's arguments."""
    about = "what every head attends to and is needed for, over a whole data set"
    parser: argparse.ArgumentParser = commands.add_parser("atlas", help=about, description=about)
    parser.set_defaults(command=run)
    parser.add_argument("experiment")
    parser.add_argument("--dataset", help="SQuAD JSON file, hub name or pocket (default: its validation set)")
    parser.add_argument("--limit", type=count_of, help="only about this many questions, in whole paragraphs")
    parser.add_argument(
        "--knockouts",
        type=_number,
        default=100,
        help="questions, of those, for which each head is switched off (default 100; 0: none)",
    )
    parser.add_argument(
        "--how", choices=("zero", "mean"), default="zero", help="what a head is switched off to"
    )
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help="instead, compare every head's maps with another experiment's (default: on 30 questions)",
    )
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="also write the tables there as CSV")
    parser.add_argument("--experiments-dir", metavar="DIR", help="default: EXPERIMENTS_DIR, or experiments")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def run(options: argparse.Namespace) -> None:
    """Make the atlas, or what is missing of it, and say what it shows."""
    experiment = find_experiment(experiments_dir(options.experiments_dir), options.experiment)
    experiment.model_folder()
    questions = _questions(experiment, options.dataset)
    if options.against is not None:
        _compare(experiment, questions, options)
        return
    questions = questions.limited(options.limit)
    from probes.atlas import Work, make_atlas
    from probes.atlas_details import by_answerability
    from probes.atlas_files import read_atlas
    from probes.atlas_processes import Processes

    processes = Processes.joined()
    with _Stages(speaks=processes.is_first) as stages:
        work = Work.of(experiment, questions, knockouts=options.knockouts, how=options.how)
        path = make_atlas(work, stage=stages.begin, processes=processes)
    processes.leave()
    if not processes.is_first:
        return
    atlas = read_atlas(path, model=work.model)
    parts = by_answerability(atlas, questions.questions)
    _tell(f"written to {path.parent}")
    if options.export is not None:
        from probes.atlas_details import export_csv

        for file in export_csv(atlas, options.export, parts.values()):
            _tell(f"written {file}")
    if options.json:
        print(json.dumps(_as_json(atlas, parts), allow_nan=False))
    else:
        print(_as_text(experiment, atlas, parts))


def _compare(experiment: Experiment, questions: QuestionSet, options: argparse.Namespace) -> None:
    """Say which heads differ from another experiment's."""
    other = find_experiment(experiments_dir(options.experiments_dir), options.against)
    other.model_folder()
    from probes.atlas_difference import QUESTIONS, Pair, make_difference, read_difference
    from probes.atlas_processes import Processes

    processes = Processes.joined()
    with _Stages(speaks=processes.is_first) as stages:
        pair = Pair.of(experiment, other, questions.limited(options.limit or QUESTIONS))
        path = make_difference(pair, stage=stages.begin, processes=processes)
    processes.leave()
    if not processes.is_first:
        return
    difference = read_difference(path)
    _tell(f"written to {path}")
    if options.export is not None:
        from probes.atlas_details import write_csv

        _tell(f"written {write_csv(difference.heads, options.export / 'difference.csv')}")
    verdicts = {
        name: [f"{layer}.{head}" for layer, head in heads] for name, heads in difference.clear().items()
    }
    if options.json:
        print(json.dumps({**difference.about, "difference": str(path), **verdicts}))
        return
    print(f"{experiment.name} and {other.name}, {difference.about['questions']} questions:")
    for name, heads in verdicts.items():
        print(f"{name:<10}{', '.join(heads) or 'none'}")


def _questions(experiment: Experiment, dataset: str | None) -> QuestionSet:
    return experiment.validation_questions() if dataset is None else load_questions(dataset, "validation")


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


class _Stages:
    """A bar for each stage, one at a time; none in a process that does not speak."""

    def __init__(self, *, speaks: bool) -> None:
        self._speaks = speaks
        self._bar: Bar | None = None

    def __enter__(self) -> _Stages:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*exception)
        self._bar = None

    def begin(self, name: str) -> Progress:
        """Close the bar of the stage before, and give the progress of this one."""
        self.__exit__(None, None, None)
        if not self._speaks:
            return lambda done, total: None
        _tell(STAGES[name])
        self._bar = Bar("questions")
        return self._bar.at


def _as_json(atlas: Atlas, parts: dict[str, Atlas]) -> dict[str, Any]:
    found = atlas.agreement()
    heads = atlas.heads[atlas.heads["role"] != ""]
    return {
        **atlas.about,
        "atlas": str(atlas.path),
        "agreement": None if found is None else {"rho": found.rho, "low": found.low, "high": found.high},
        "roles": {
            role: group[["layer", "head"]].to_numpy().tolist() for role, group in heads.groupby("role")
        },
        "important": _important_rows(atlas, MOST_HEADS),
        "parts": {
            name: {"questions": part.count, "important": _important_rows(part, MOST_HEADS)}
            for name, part in parts.items()
        },
    }


KNOCKOUT = ("knockout", "knockout_low", "knockout_high")


def _important_rows(atlas: Atlas, most: int) -> list[dict[str, Any]]:
    names = ["layer", "head", "role", *KNOCKOUT]
    # On one paragraph there is no interval, and JSON has no number for that.
    return [dict(zip(names, row, strict=True)) for row in rows_of(_important(atlas, most)[names])]


def _important(atlas: Atlas, most: int) -> Any:
    """The heads without which the gold answer loses most; none without knock-outs."""
    known = atlas.heads[atlas.heads["knockout"].notna()]
    return known.sort_values(["knockout", "layer", "head"], ascending=[False, True, True]).head(most)


def _as_text(experiment: Experiment, atlas: Atlas, parts: dict[str, Atlas]) -> str:
    about = atlas.about
    layers, heads = atlas.shape
    lines = [
        f"{experiment.name}: {layers} layers of {heads} heads, {about['questions']} questions of "
        f"{about['dataset']}, heads switched off ({about['how']}) for {about['knockouts']} of them",
        "",
        "role                 heads (layer.head)",
    ]
    roles: dict[str, list[str]] = {}
    for row in atlas.heads[["role", "layer", "head"]].to_dict("records"):
        roles.setdefault(row["role"] or "none", []).append(f"{row['layer']}.{row['head']}")
    for role, names in sorted(roles.items()):
        lines.append(f"{role:<21}{f'{len(names)} heads' if role == 'none' else ', '.join(names)}")
    lines += _needed("log-probability of the gold answer lost without a head", atlas, MOST_HEADS)
    for name, part in parts.items():
        count = part.heads["knockout_questions"].max()
        lines += _needed(f"the same over the {count} {name} questions", part, MOST_OF_PART)
    found = atlas.agreement()
    if found is not None:
        lines += [
            "",
            f"gradients rank heads as knock-out does with rho {found.rho:.2f} ({found.low:.2f} to "
            f"{found.high:.2f}, over {found.heads} heads)",
        ]
    return "\n".join(lines)


def _needed(title: str, atlas: Atlas, most: int) -> list[str]:
    """The heads that are needed most, under the title; nothing without knock-outs."""
    lines = []
    for row in _important(atlas, most).to_dict("records"):
        value, low, high = (row[name] for name in KNOCKOUT)
        between = f"({low:.3f} to {high:.3f})" if low == low else ""  # NaN for one paragraph
        lines.append(
            f"layer {row['layer']}, head {row['head']:<4}{value:8.3f}  {between:<18}  {row['role']}".rstrip()
        )
    return ["", f"{title} (95 % interval, by paragraph)", *lines] if lines else []
