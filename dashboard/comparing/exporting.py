"""What can be taken away: tables as CSV and LaTeX, every answer as CSV, and one HTML report with charts.

Each file is made when its button is pressed, from what the page has computed already.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard import elements
from dashboard.charts import intervals
from dashboard.charts.learning import learning_curves
from dashboard.charts.looks import LIGHT
from dashboard.charts.rendering import svg
from dashboard.comparing import curved, scoring, sliced
from dashboard.comparing.configured import seed_runs
from dashboard.data import comparison
from dashboard.data.comparison import Board, Candidate
from dashboard.elements import Download
from qa.comparison import CELLS, PARTS, cells_of
from qa.differing import setting_rows
from qa.exports import Cell, as_csv, as_latex, rows_of
from qa.intervals import holm
from qa.report import Section, Table, as_html
from qa.scored import METRICS
from qa.seeds import seed_groups
from qa.slices import FEWEST

WIDTH = 680  # pixels of a chart in the report
HTML = "text/html"
CSV = "text/csv"


def draw(candidates: Sequence[Candidate], board: Board) -> None:
    """A button for each file."""
    files = [
        Download("Scores (CSV)", "scores.csv", lambda: as_csv(*score_table(board)), CSV),
        Download("Scores (LaTeX)", "scores.tex", lambda: latex(board), "application/x-tex"),
        Download("Settings (CSV)", "settings.csv", lambda: as_csv(*settings_table(candidates)), CSV),
        Download("Slices (CSV)", "slices.csv", lambda: as_csv(*slice_table(board)), CSV),
        Download("Every answer (CSV)", "answers.csv", lambda: as_csv(*answer_table(board)), CSV),
        Download("Report (HTML)", "comparison.html", lambda: report(candidates, board), HTML),
    ]
    elements.downloads(files, key="compare_export")
    st.caption(
        "The report is one file: tables, charts and how every number came about. It opens anywhere and asks "
        "no other host for anything. LaTeX needs the package booktabs."
    )


def score_table(board: Board) -> tuple[list[str], list[list[Cell]]]:
    """Every metric of every experiment, with differences to the reference."""
    heading = ["experiment", "metric", "questions", "value_percent", "low", "high"]
    heading += ["difference_points", "difference_low", "difference_high", "mcnemar_p", "mcnemar_p_holm"]
    pairs = comparison.comparisons(board)
    adjusted = holm([pair.p_value for pair in pairs])
    rows: list[list[Cell]] = []
    for index, (name, own) in enumerate(zip(board.names, comparison.scores(board), strict=True)):
        for place, score in enumerate(own):
            row: list[Cell] = [
                name,
                score.metric,
                score.count,
                score.value,
                *(score.interval or (None, None)),
            ]
            if index:
                difference = pairs[index - 1].differences[place]
                row += [difference.difference, *(difference.interval or (None, None))]
                tested = score.metric == "exact_match"
                row += [pairs[index - 1].p_value, adjusted[index - 1]] if tested else [None, None]
            else:
                row += [None] * 5
            rows.append(row)
    return heading, rows


def paper_table(board: Board, part: str = "") -> tuple[list[str], list[list[Cell]]]:
    """A row an experiment, as a paper prints it; p-values of several are adjusted for their number.

    Args:
        board: of the experiments.
        part: which questions, one of PARTS.
    """
    pairs = comparison.comparisons(board)
    heading = ["Experiment"]
    for metric in ("EM", "F1"):
        heading += [f"{metric} (%)", "95 % interval"]
        heading += [f"Δ {metric}", "95 % interval"] if pairs else []
    tested = bool(pairs) and not part
    adjusted = holm([pair.p_value for pair in pairs])
    rows: list[list[Cell]] = []
    for index, (name, own) in enumerate(zip(board.names, comparison.scores(board), strict=True)):
        row: list[Cell] = [name]
        for metric in METRICS:
            place = [score.metric for score in own].index(f"{part}{metric}")
            row += [own[place].value, scoring.between(own[place].interval)]
            if index:
                difference = pairs[index - 1].differences[place]
                row += [difference.difference, scoring.signed(difference.interval)]
            elif pairs:
                row += [None, "reference"]
        row += ([f"{adjusted[index - 1]:.2g}"] if index else ["reference"]) if tested else []
        rows.append(row)
    if tested:
        heading.append("McNemar p, Holm" if len(pairs) > 1 else "McNemar p")
    return heading, rows


def latex(board: Board) -> str:
    """The scores for a paper; the caption says how the numbers came about."""
    asked = f"{board.data}, {len(board.questions)} questions. {scoring.INTERVALS}"
    return as_latex(*paper_table(board), caption=asked)


def settings_table(candidates: Sequence[Candidate]) -> tuple[list[str], list[list[Cell]]]:
    """Every setting of every experiment, and whether it differs."""
    rows = setting_rows([one.settings for one in candidates])
    heading = ["setting", "differs", *(one.name for one in candidates)]
    return heading, [[row.key, "yes" if row.differs else "no", *row.values] for row in rows]


def slice_table(board: Board) -> tuple[list[str], list[list[Cell]]]:
    """Every slice by every slicing, in both metrics."""
    heading = ["slicing", "group", "experiment", "metric", "questions", "value_percent", "low", "high"]
    heading += ["difference_points", "difference_low", "difference_high"]
    rows: list[list[Cell]] = [
        [
            slicing.name,
            one.label,
            one.experiment,
            metric,
            one.count,
            one.value,
            *(one.interval or (None, None)),
            one.difference,
            *(one.difference_interval or (None, None)),
        ]
        for slicing in comparison.slicings_of(board)
        for metric in METRICS
        for one in comparison.slices(board, slicing, metric)
    ]
    return heading, rows


def answer_table(board: Board) -> tuple[list[str], list[list[Cell]]]:
    """A row a question: gold answers, and what each experiment answered."""
    heading = ["id", "title", "question", "gold"]
    for name in board.names:
        heading += [f"{name}: {what}" for what in ("answer", "exact_match", "f1")]
    rows: list[list[Cell]] = []
    for number, question in enumerate(board.questions):
        row: list[Cell] = [question.id, question.title, question.question, " | ".join(question.answers)]
        for answers in board.answers:
            exact, f1 = answers.exact_matches[number], answers.f1s[number]
            row += [answers.texts[number], float(exact), float(f1)]
        rows.append(row)
    return heading, rows


def report(candidates: Sequence[Candidate], board: Board) -> str:
    """Everything about the comparison in one HTML file."""
    names = ", ".join(board.names)
    about = f"{board.data}: {len(board.questions):,} questions (SHA-256 {board.sha}). The reference is "
    sections = [
        *_scores(board),
        *_cells(board),
        _slices(board),
        _curves(candidates),
        _settings(candidates),
        _seeds(candidates),
    ]
    kept = [section for section in sections if section.tables or section.charts]
    return as_html(f"Comparison of {names}", f"{about}{board.names[0]}.", kept)


def _scores(board: Board) -> list[Section]:
    """All questions, and where some have no answer both parts of them."""
    pairs = comparison.comparisons(board)
    there = {score.metric: score.count for score in comparison.scores(board)[0]}
    sections = []
    for part in PARTS:
        if f"{part}f1" not in there:
            continue
        about = f"{scoring.PART_TITLES[part]}, {there[f'{part}f1']:,}"
        title = f"points more than {board.names[0]} (95 % interval, paired)"
        chart = intervals.differences(
            scoring.dots(pairs, part), [*scoring.TITLES.values()], title=title, look=LIGHT
        )
        charts = [svg(chart.properties(width=WIDTH))] if pairs else []
        note = "" if part else scoring.INTERVALS
        sections.append(Section(f"Scores: {about}", note, [Table(*paper_table(board, part))], charts))
    return sections


def _cells(board: Board) -> list[Section]:
    reference = board.answers[0]
    rows: list[list[Cell]] = []
    for other in board.answers[1:]:
        cells = cells_of(reference, other)
        rows.append([other.name, *(int((cells == cell).sum()) for cell in range(len(CELLS)))])
    heading = ["Experiment", "right in both", "only in the reference", "only in this one", "right in neither"]
    note = "Questions answered exactly. McNemar's test asks whether the two middle columns could be alike."
    return [Section("Right and wrong", note, [Table(heading, rows)])] if rows else []


def _slices(board: Board) -> Section:
    charts, tables = [], []
    names = board.names[: sliced.MOST_DRAWN]
    for slicing in comparison.slicings_of(board):
        found = comparison.slices(board, slicing, "f1")
        table = sliced.frame(found)
        tables.append(Table([slicing.title, *table.columns[1:]], rows_of(table)))
        drawn = [one for one in found if one.experiment in names]
        title = f"F1, % by {slicing.title} (95 % interval)"
        chart = intervals.scores(sliced.score_dots(drawn), names, title=title)
        charts.append(svg(chart.properties(width=WIDTH)))
    note = (
        f"F1 by groups of like questions. There is no interval on fewer than {FEWEST} paragraphs, or where "
        "all values are alike. One in twenty leaves out the truth."
    )
    return Section("Slices", note, tables, charts)


def _curves(candidates: Sequence[Candidate]) -> Section:
    charts, names = [], [one.name for one in candidates]
    for metric in ("f1", "loss"):
        curves = comparison.curves(candidates, metric, by="step")
        if curves:
            chart = learning_curves(curves, names, x="step", y=curved.METRICS[metric])
            charts.append(svg(chart.properties(width=WIDTH)))
    return Section("Learning curves", "Scores are on each run's own validation data.", (), charts)


def _settings(candidates: Sequence[Candidate]) -> Section:
    heading, rows = settings_table(candidates)
    differing = [[row[0], *row[2:]] for row in rows if row[1] == "yes"]
    tables = [Table([heading[0], *heading[2:]], differing)] if differing else []
    return Section("Settings that differ", "Equal means of the same type and value.", tables)


def _seeds(candidates: Sequence[Candidate]) -> Section:
    groups = seed_groups(seed_runs(candidates))
    rows: list[list[Cell]] = [
        [group.name, len(group.runs), str(group.exact_match), str(group.f1), ", ".join(group.runs)]
        for group in groups
    ]
    tables = [Table(["Group", "Runs", "EM", "F1", "Experiments"], rows)] if rows else []
    return Section("Seeds", "Mean ± standard deviation of the runs (n − 1), in percentage points.", tables)
