"""Make the atlas: every question of a data set through the model, and a sample of them without each head.

Three tables come of it, made in parts (`probes.atlas_making`): the questions, the pruning, and from both the
heads, which is all that most readers want (`probes.atlas_files`). The trap: importance takes a model's time
once for each head, so it is measured on a sample, spread evenly over the questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.analyses import FOLDER, Header, checkpoint_fingerprint, write_analysis
from probes.atlas_files import HEADS, QUESTIONS, Float, question_table, summarised
from probes.atlas_importance import Gold, estimate_singles, knock_out_singles
from probes.atlas_making import Stage, Table, by_paragraphs, make_table, parts_of, spread
from probes.atlas_processes import Processes
from probes.atlas_pruning import PRUNED, PRUNING, Plan, plan_pruning, pruned_table, pruning_table
from probes.atlas_questions import map_measures, term_measures
from probes.encoders import describe
from qa.experiment import Experiment
from qa.reader import Reader
from qa.squad import Question, QuestionSet

KNOCKOUTS = 100


@dataclass(frozen=True, slots=True)
class Work:
    """An atlas to make.

    Attributes:
        experiment: whose folder it goes to.
        reader: of its model.
        questions: in the order in which they are read: those of a paragraph together.
        knocked: ids of those for which heads are switched off.
        how: "zero" or "mean".
        model: fingerprint of the model's files.
    """

    experiment: Experiment
    reader: Reader
    questions: QuestionSet
    knocked: frozenset[str]
    how: str
    model: str

    @staticmethod
    def of(
        experiment: Experiment,
        questions: QuestionSet,
        *,
        knockouts: int = KNOCKOUTS,
        how: str = "zero",
        device: str = "auto",
    ) -> Work:
        """The atlas of an experiment's model.

        Args:
            experiment: with a model.
            questions: to read.
            knockouts: for how many of them, spread evenly, heads are switched off.
            how: "zero" or "mean", see `probes.ablation`.
            device: where to compute.

        Raises:
            UserError: it has no model, or one of an architecture that is not covered.
        """
        reader = Reader.of(experiment, device=device)
        describe(reader.encoder.model)
        ordered = by_paragraphs(questions)
        return Work(
            experiment=experiment,
            reader=reader,
            questions=ordered,
            knocked=frozenset(question.id for question in spread(ordered, knockouts).questions),
            how=how,
            model=checkpoint_fingerprint(experiment.model_folder()),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and heads."""
        parts = describe(self.reader.encoder.model)
        return len(parts.layers), parts.heads

    @property
    def about(self) -> dict[str, Any]:
        """What its files are about."""
        layers, heads = self.shape
        return {
            "dataset": self.questions.name,
            "data": self.questions.sha256(),
            "questions": len(self.questions.questions),
            "knockouts": len(self.knocked),
            "how": self.how,
            "layers": layers,
            "heads": heads,
        }


def make_atlas(work: Work, *, stage: Stage, processes: Processes) -> Path:
    """Make all files of an atlas that are not there yet; the path of the table of heads.

    Args:
        work: what to make.
        stage: see `Stage`.
        processes: who shares the work.

    Raises:
        UserError: another command is making it, or the folder cannot be written.
    """
    parts = parts_of(work.questions)
    header = Header(QUESTIONS, work.model, work.about)
    measured = Table(header, parts, lambda question: question_row(work, question), question_table)
    questions = make_table(work.experiment, measured, progress=stage("heads"), processes=processes)
    plan = plan_pruning(questions, work.shape) if work.knocked else None
    if plan is not None:
        knocked = [[question for question in part if question.id in work.knocked] for part in parts]
        header = Header(PRUNED, work.model, work.about)
        pruned = Table(
            header,
            knocked,
            lambda question: _pruned_row(work, plan, question),
            lambda rows: pruned_table([row for row in rows if row is not None], plan),
        )
        scores = make_table(work.experiment, pruned, progress=stage("pruning"), processes=processes)
        if processes.is_first:
            write_analysis(
                work.experiment, Header(PRUNING, work.model, work.about), pruning_table(scores, plan)
            )
    heads = Header(HEADS, work.model, work.about)
    if processes.is_first:
        write_analysis(work.experiment, heads, summarised(questions, work.shape))
    processes.wait()
    return work.experiment.path / FOLDER / heads.file_name


def question_row(work: Work, question: Question) -> dict[str, Any]:
    """Everything that one question shows of every head."""
    row: dict[str, Any] = {"id": question.id, "paragraph": question.paragraph}
    row |= map_measures(work.reader, question) | term_measures(work.reader, question)
    if question.id in work.knocked:
        gold = Gold.of(work.reader, question, work.questions.version)
        if gold is not None:
            row |= knock_out_singles(gold, how=work.how)
            row["gradient"] = estimate_singles(gold, how=work.how)
    return row


def _pruned_row(work: Work, plan: Plan, question: Question) -> tuple[Question, Float] | None:
    gold = Gold.of(work.reader, question, work.questions.version)
    return None if gold is None else (question, plan.scores(gold, how=work.how))
