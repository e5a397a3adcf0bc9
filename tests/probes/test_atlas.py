"""The atlas as a whole: the same numbers as all at once, the same file however it was made, and refusals."""

import json
import multiprocessing
import os
import signal
import socket

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats

import small_runs
from probes import atlas as making
from probes import atlas_making as in_parts
from probes.analyses import FOLDER, METADATA, checkpoint_fingerprint
from probes.atlas import Work, make_atlas
from probes.atlas_details import (
    by_answerability,
    companion,
    export_csv,
    over_questions,
    question_frame,
    read_pruning,
    read_questions,
)
from probes.atlas_files import QUESTIONS, agreement, find_atlases, latest_atlas, read_atlas
from probes.atlas_importance import Gold, knock_out_sets
from probes.atlas_measures import MAP_MEASURES, MEASURES, QUESTION_MEASURES
from probes.atlas_processes import Processes
from probes.atlas_pruning import GUIDES, PRUNED, PRUNING, RANDOM_ORDERS, plan_pruning
from probes.atlas_questions import map_measures
from qa import files
from qa.errors import UserError
from qa.intervals import paragraph_interval
from qa.reader import Reader

_server = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("atlas") / "experiments"
    for name in ("whole", "other", "third"):
        small_runs.imported(root, name)
    return root


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(in_parts, "QUESTIONS_OF_PART", 1)


def experiment_of(root, name):
    return small_runs.Experiment(root / name)


def make(root, name, processes=None, stage=lambda name: lambda done, total: None, **options):
    """The atlas of a small experiment, in parts of one paragraph."""
    experiment = experiment_of(root, name)
    work = Work.of(experiment, experiment.validation_questions(), device="cpu", **options)
    return make_atlas(work, stage=stage, processes=processes or Processes())


def clear(root, name):
    files.remove(root / name / FOLDER)


@pytest.fixture(scope="module")
def whole(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_parts, "QUESTIONS_OF_PART", 1)
        return read_atlas(make(root, "whole"))


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.parent.iterdir())}


def test_means_and_intervals_are_those_of_all_questions_at_once(root, whole):
    questions = experiment_of(root, "whole").validation_questions().questions
    reader = Reader.of(experiment_of(root, "whole"), device="cpu")
    each = [map_measures(reader, question) for question in questions]
    paragraphs = [question.paragraph for question in questions]
    for measure in MAP_MEASURES:
        values = np.stack([found[measure.name] for found in each])
        np.testing.assert_allclose(
            whole.map(measure.name), np.nanmean(values, axis=0), rtol=1e-6, atol=1e-6, err_msg=measure.name
        )
        assert (whole.map(f"{measure.name}_questions") == np.isfinite(values).sum(0)).all()
    values = np.stack([found["entropy"] for found in each])[:, 1, 0]
    low, high = paragraph_interval(values, paragraphs)
    reach = whole.map("entropy_high")[1, 0] - whole.map("entropy_low")[1, 0]
    assert whole.map("entropy_low")[1, 0] < values.mean() < whole.map("entropy_high")[1, 0]
    # Of four paragraphs the bootstrap's are too narrow: Student's t of three degrees of freedom says 3.2.
    assert high - low < reach < 3 * (high - low)


@torch.inference_mode()
def test_the_numbers_are_those_of_all_maps_of_the_library_at_once(root, whole):
    experiment = experiment_of(root, "whole")
    reader = Reader.of(experiment, device="cpu")
    questions = experiment.validation_questions().questions
    windows = reader.windows([(question.question, question.context) for question in questions])
    assert len(windows) == len(questions)
    from qa.batches import pad_windows
    from qa.model import load_encoder

    eager = load_encoder(str(experiment.model_folder()), "eager")
    inputs = pad_windows(windows, range(len(windows)), eager.tokenizer)
    maps = torch.stack(eager.model(**inputs, output_attentions=True).attentions).double().numpy()  # [L, Q, …]
    lengths = windows.lengths
    entropies, before, sep = [], [], []
    for number, n in enumerate(lengths):
        own = maps[:, number, :, :n, :n]
        entropies.append(-(own * np.log2(np.where(own > 0, own, 1))).sum(-1).mean(-1))
        before.append(np.diagonal(own, -1, 2, 3).mean(-1))
        end = [int(windows.context_start[number]) - 1, n - 1]
        sep.append(own[..., end].sum(-1).mean(-1))
    for name, values in (("entropy", entropies), ("previous", before), ("sep", sep)):
        np.testing.assert_allclose(whole.map(name), np.mean(values, axis=0), rtol=1e-6, atol=1e-6)


def test_a_table_of_heads_says_what_it_is_of(whole, root):
    assert whole.shape == (2, 2)
    assert whole.about["questions"] == whole.about["knockouts"] == 8
    assert whole.about["how"] == "zero"
    assert set(whole.measured()) == {measure.name for measure in MEASURES}
    assert whole.heads["knockout_questions"].max() <= 8
    assert (whole.heads["sinks_low"] >= 0).all()
    assert latest_atlas(root / "whole").path == whole.path
    assert read_atlas(whole.path, model=checkpoint_fingerprint(root / "whole" / "best_model")).shape == (2, 2)


def test_sizes_are_means_of_sizes(whole):
    values = read_questions(whole, "gradient").values
    np.testing.assert_allclose(whole.map("gradient_size"), np.nanmean(np.abs(values), axis=0), rtol=1e-6)
    np.testing.assert_allclose(whole.map("gradient"), np.nanmean(values, axis=0), rtol=1e-5, atol=1e-7)


def test_what_is_interrupted_goes_on_and_gives_the_same_files(root, whole, small_parts, monkeypatch):
    real, done = making.question_row, []

    def stops(work, question):
        if len(done) in (3, 5):
            done.append("interrupted")
            raise KeyboardInterrupt
        done.append(question.id)
        return real(work, question)

    monkeypatch.setattr(making, "question_row", stops)
    clear(root, "other")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            make(root, "other")
        assert not find_atlases(experiment_of(root, "other"))
    path = make(root, "other")
    # Parts are paragraphs of two questions: of each interruption one question is read again.
    assert len(done) == 8 + 2 + 2
    assert contents(path) == contents(whole.path)


def killed(root, flushes):
    """Make the atlas, and be killed in the middle of a save."""
    in_parts.QUESTIONS_OF_PART = 1
    small_runs._die_at_flush(flushes)
    make(root, "third")


@pytest.mark.parametrize("flushes", [2, 6])
def test_what_is_killed_goes_on_and_gives_the_same_files(root, whole, small_parts, flushes):
    clear(root, "third")
    process = _server.Process(target=killed, args=(root, flushes))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not find_atlases(experiment_of(root, "third"))
    assert contents(make(root, "third")) == contents(whole.path)


def shared(root, rank, port):
    in_parts.QUESTIONS_OF_PART = 1
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = Processes.joined()
    make(root, "third", processes)
    processes.leave()


def test_processes_share_the_work_and_give_the_same_files(root, whole, small_parts):
    clear(root, "third")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = [_server.Process(target=shared, args=(root, rank, port)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    (path,) = find_atlases(experiment_of(root, "third"))
    assert contents(path) == contents(whole.path)


def test_each_process_has_parts_of_its_own():
    both = [Processes(rank, 2) for rank in (0, 1)]
    assert [each.own([0, 1, 3, 4]) for each in both] == [[0, 4], [1, 3]]
    assert [each.is_first for each in both] == [True, False]


def test_what_is_made_is_not_made_again_unless_it_is_damaged(root, whole, small_parts, monkeypatch):
    before = contents(whole.path)
    calls, real = [], making.question_row
    monkeypatch.setattr(making, "question_row", lambda *work: calls.append(1) or real(*work))
    make(root, "whole")
    assert not calls
    file = companion(whole, QUESTIONS)
    file.write_bytes(file.read_bytes()[:-9])
    make(root, "whole")
    assert len(calls) == 8
    assert contents(whole.path) == before


def test_progress_counts_questions_of_each_stage(root, small_parts):
    seen = {}
    clear(root, "other")
    make(
        root, "other", stage=lambda name: lambda done, total: seen.setdefault(name, []).append((done, total))
    )
    assert seen["heads"] == [(n, 8) for n in range(1, 9)]
    assert seen["pruning"] == [(n, 8) for n in range(1, 9)]


def test_without_knockouts_nothing_is_known_of_importance(root):
    atlas = read_atlas(make(root, "other", knockouts=0))
    assert atlas.heads["knockout"].isna().all()
    assert "knockout" not in atlas.measured()
    assert atlas.agreement() is None
    assert read_pruning(atlas) is None
    some = read_atlas(make(root, "other", knockouts=2))
    assert some.heads["knockout_questions"].max() <= 2


def test_another_version_model_shape_or_half_a_file_is_refused(root, whole, tmp_path):
    for size in (10, len(whole.path.read_bytes()) // 2, -1):
        cut = tmp_path / whole.path.name
        cut.write_bytes(whole.path.read_bytes()[:size])
        with pytest.raises(UserError, match="make it again: python -m probes atlas NAME"):
            read_atlas(cut)
    table = pq.read_table(whole.path)
    header = json.loads(table.schema.metadata[METADATA])

    def changed(table=table, **values):
        path = tmp_path / "changed.parquet"
        pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(header | values)}), path)
        return path

    with pytest.raises(UserError, match="of version 0, but this program reads 'atlas' of version 1"):
        read_atlas(changed(version=0))
    with pytest.raises(UserError, match="made with another model"):
        read_atlas(whole.path, model="0" * 64)
    for about in ({"layers": 3, "heads": 2}, {"layers": 1, "heads": 4}, {"layers": -2, "heads": -2}, {}):
        with pytest.raises(UserError, match=r"not 3 layers of 2|not 1 layers of 4|does not say"):
            read_atlas(changed(about=about))
    with pytest.raises(UserError, match="not 2 layers of 2 heads"):
        read_atlas(changed(table=table.take([1, 0, 2, 3])))
    with pytest.raises(UserError, match="no atlas yet; make one: python -m probes atlas empty"):
        latest_atlas(tmp_path / "empty")


def test_questions_of_another_atlas_are_refused(root, whole, tmp_path):
    table = pq.read_table(companion(whole, QUESTIONS))
    header = json.loads(table.schema.metadata[METADATA])
    path = tmp_path / whole.path.name
    path.write_bytes(whole.path.read_bytes())
    moved = read_atlas(path)
    with pytest.raises(UserError, match="missing, cut short, or no analysis"):
        read_questions(moved, "entropy")
    for change in ({"questions": 9}, {"layers": 1}):
        about = {METADATA: json.dumps({**header, "about": header["about"] | change})}
        pq.write_table(table.replace_schema_metadata(about), companion(moved, QUESTIONS))
        with pytest.raises(UserError, match="of another atlas"):
            read_questions(moved, "entropy")
        with pytest.raises(UserError, match="of another atlas"):
            over_questions(moved, {"1-0-0"})
    short = pa.array([[0.0] * 3] * len(table), table.schema.field("entropy").type)
    place = table.schema.get_field_index("entropy")
    pq.write_table(table.set_column(place, table.schema.field(place), short), companion(moved, QUESTIONS))
    with pytest.raises(UserError, match="not of this model's shape"):
        read_questions(moved, "entropy")
    with pytest.raises(UserError, match="not of this model's shape"):
        over_questions(moved, set(table["id"].to_pylist()))


def test_the_questions_in_which_a_head_is_most_and_least(root, whole):
    found = read_questions(whole, "entropy")
    own = dict(zip(found.ids, found.values[:, 1, 1], strict=True))
    most, least = found.extremes(1, 1, 3)
    ranked = sorted(own, key=own.get)
    assert least["id"].tolist() == ranked[:3]
    assert most["id"].tolist() == sorted(own, key=lambda id_: -own[id_])[:3]
    assert most["value"].tolist() == [own[id_] for id_ in most["id"]]
    most, least = found.extremes(0, 0, 6)
    assert (len(most), len(least)) == (6, 2)
    none, nothing = read_questions(whole, "answer_to_question").extremes(0, 0, 8)
    assert len(none) + len(nothing) == whole.heads["answer_to_question_questions"][0] < 8


def test_over_some_questions_every_number_is_theirs(root, whole):
    questions = experiment_of(root, "whole").validation_questions().questions
    parts = by_answerability(whole, questions)
    own = {name: [q for q in questions if bool(q.answers) == (name == "answerable")] for name in parts}
    assert {name: len(part) for name, part in own.items()} == {"answerable": 6, "unanswerable": 2}
    for name, part in parts.items():
        ids = [question.id for question in own[name]]
        assert list(part.heads.columns) == list(whole.heads.columns)
        for measure in ("entropy", "knockout", "gradient"):
            found = read_questions(part, measure)
            assert found.ids.tolist() == ids
            values = read_questions(whole, measure)
            table = pd.DataFrame(values.values.reshape(8, 4), index=values.ids).loc[ids]
            np.testing.assert_allclose(part.map(measure).ravel(), table.mean(), rtol=1e-6)
            low, high = interval_of_means(table.assign(paragraph=[q.paragraph for q in own[name]]))
            np.testing.assert_allclose(part.map(f"{measure}_low").ravel(), low, rtol=1e-6)
            np.testing.assert_allclose(part.map(f"{measure}_high").ravel(), high, rtol=1e-6)
        assert (part.heads["knockout_questions"] == len(ids)).all()
    together = over_questions(whole, {question.id for question in questions} | {"of other data"})
    pd.testing.assert_frame_equal(together.heads, whole.heads)
    assert by_answerability(whole, own["answerable"]) == {}, "all are of one kind"


def interval_of_means(table):
    """Linearised, by paragraph, from the definition: residual sums of clusters, Student's t."""
    values = table.drop(columns="paragraph")
    sums = (values - values.mean()).groupby(table["paragraph"]).sum()
    k = len(sums)
    reach = stats.t.ppf(0.975, k - 1) * np.sqrt((sums**2).sum() * k / (k - 1)) / len(values)
    return values.mean() - reach, values.mean() + reach


def test_pruning_is_scored_with_the_order_of_the_other_half(root, whole):
    experiment = experiment_of(root, "whole")
    questions = experiment.validation_questions()
    plan = plan_pruning(companion(whole, QUESTIONS), (2, 2))
    assert plan.removed == (0, 1, 2, 3, 4)
    assert plan.names == (*GUIDES, *(f"random {n}" for n in range(1, RANDOM_ORDERS + 1)))
    assert all(sorted(order) == [(0, 0), (0, 1), (1, 0), (1, 1)] for half in plan.orders for order in half)
    values = read_questions(whole, "knockout")
    assert list(plan.halves.values()) == [0, 1, 0, 1]
    halves = {question.id: plan.halves[question.paragraph] for question in questions.questions}
    for half in (0, 1):
        there = [halves[id_] == 1 - half for id_ in values.ids]
        mean = np.nanmean(np.abs(values.values[there]), axis=0)
        assert plan.orders[half][0] == tuple(
            (int(n) // 2, int(n) % 2) for n in np.argsort(mean.ravel(), kind="stable")
        )
    reader = Reader.of(experiment, device="cpu")
    rows = pq.read_table(companion(whole, PRUNED)).to_pandas()
    expected = []
    for question in questions.questions:
        gold = Gold.of(reader, question, questions.version)
        order = plan.orders[plan.halves[question.paragraph]][0]
        found = knock_out_sets(gold, [order[:n] for n in plan.removed[1:]]).scores
        own = rows[(rows["id"] == question.id) & (rows["order"] == "knockout")]
        assert own["f1"].tolist() == found[:, 1].tolist()
        expected.append(found)
    pruning = read_pruning(whole)
    curve = pruning[pruning["order"] == "knockout"]
    np.testing.assert_allclose(curve[["exact_match", "f1"]], np.mean(expected, axis=0), rtol=0, atol=1e-9)
    assert curve["removed"].tolist() == list(plan.removed)
    assert (pruning["questions"] == 8).all()
    assert companion(whole, PRUNING).exists()


def test_heads_go_in_the_order_of_the_size_of_their_effect_not_of_least_harm(tmp_path):
    """Head 0 helps as much as it hurts, a head of no harm in the mean; head 1 always helps a little."""
    effects = [(2.0, 0.5), (2.0, 0.5), (-2.0, 0.5), (-2.0, 0.5)]
    table = pa.table(
        {
            "paragraph": ["a", "b", "c", "d"],
            **{guide: [list(effect) for effect in effects] for guide in GUIDES},
        }
    )
    pq.write_table(table, tmp_path / "questions.parquet")
    plan = plan_pruning(tmp_path / "questions.parquet", (1, 2))
    for half in plan.orders:
        assert half[: len(GUIDES)] == (((0, 1), (0, 0)),) * len(GUIDES)


def test_everything_can_be_had_as_csv(whole, tmp_path):
    written = export_csv(whole, tmp_path / "tables")
    assert [file.name for file in written] == ["heads.csv", "pruning.csv", "questions.csv"]
    heads, pruning, questions = map(pd.read_csv, written)
    pd.testing.assert_frame_equal(
        heads.drop(columns="role"), whole.heads.drop(columns="role"), check_dtype=False
    )
    assert pruning.columns.tolist() == read_pruning(whole).columns.tolist()
    assert questions.columns.tolist() == ["id", "layer", "head", *(m.name for m in QUESTION_MEASURES)]
    assert len(questions) == 8 * 4
    frame = question_frame(whole)
    one = frame[(frame["layer"] == 1) & (frame["head"] == 0)]
    np.testing.assert_allclose(one["sinks"].mean(), whole.map("sinks")[1, 0], rtol=1e-6)


def test_agreement_is_spearmans_with_an_interval():
    draw = np.random.default_rng(0)
    first = draw.normal(size=(6, 12))
    found = agreement(first, first + draw.normal(size=(6, 12)))
    assert found.low < found.rho < found.high
    assert found.heads == 72
    assert agreement(first, np.exp(first)).rho == pytest.approx(1)
    assert agreement(first, np.zeros((6, 12))) is None
    assert agreement(first, np.full((6, 12), np.nan)) is None


def test_questions_of_a_paragraph_are_read_together_and_knockouts_lie_evenly(root):
    experiment = experiment_of(root, "whole")
    questions = experiment.validation_questions()
    mixed = questions.subset(questions.questions[::2] + questions.questions[1::2])
    work = Work.of(experiment, mixed, knockouts=4, device="cpu")
    paragraphs = [question.paragraph for question in work.questions.questions]
    assert paragraphs == [key for key in dict.fromkeys(paragraphs) for _ in range(2)]
    assert (
        len({question.paragraph for question in work.questions.questions if question.id in work.knocked}) > 2
    )
    assert sum(map(len, in_parts.parts_of(work.questions))) == 8
