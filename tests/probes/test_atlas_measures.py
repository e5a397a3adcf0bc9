"""What is read off maps: numbers from paper, another way of computing them, and heads set by hand."""

import numpy as np
import pytest
import torch

import atlases
import tiny_models
from probes.atlas_files import role_map
from probes.atlas_measures import BY_NAME, MAP_MEASURES, MEASURES, measure_maps
from probes.atlas_questions import map_measures, term_measures
from probes.atlas_roles import NO_ROLE, ROLES, roles_of
from probes.atlas_statistics import ClusterMeans
from probes.encoders import describe
from probing import CONTEXT, QUESTION, READING, small_attention
from qa.model import load_encoder
from qa.reader import Reader
from qa.squad import Question


def asked(question, context, answer=None):
    answers = () if answer is None else (answer,)
    return Question("q", "", "p", question, context, answers, tuple(context.index(a) for a in answers))


def test_a_window_on_paper():
    """[CLS] who s ##at [SEP] the cat [SEP]: each gives half to the next token and half to "cat"."""
    T = 8
    maps = np.zeros((1, 1, T, T), dtype=np.float32)
    for row in range(T):
        maps[0, 0, row, min(row + 1, T - 1)] += 0.5
        maps[0, 0, row, 6] += 0.5
    found = {name: values[0, 0] for name, values in measure_maps(small_attention(maps)).means().items()}
    expected = {
        "entropy": 7 / 8,  # one bit, but row 5, whose next token is "cat", has all there
        "evenness": 7 / 8 / 3,
        # From rows 0 to 7 to the next token (the last row has itself), and to "cat".
        "distance": (7 * 0.5 + sum(abs(row - 6) for row in range(8)) * 0.5) / 8,
        "sinks": (0.5 + 0.5 + 0.5) / 8,  # rows 3, 6 and 7 have [SEP] as half
        "cls": 0,
        "sep": 1.5 / 8,
        "previous": 0.5 / 7,  # the last row: "cat" is before it
        "next": (6 * 0.5 + 1) / 7,
        "itself": (0.5 + 0.5) / 8,  # "cat" and the last token
        "question_to_context": 0.5,
        "context_to_question": 0,
        "answer_to_question": 0,
        "question_to_answer": 0.5,
        "to_answer": (6 * 0.5 + 1) / 7,  # of all but "cat"; "the" has all of it there
    }
    assert np.isnan(found.pop("same_word"))
    assert found == pytest.approx(expected, abs=1e-7)


def plain(maps, tokens, question, context, answer):
    """The measures once more, row by row in plain Python, from maps [L, H, T, T] and where things are."""
    T = len(tokens)
    log = np.log2(np.where(maps > 0, maps, 1))
    entropy = -(maps * log).sum(-1)
    place = np.arange(T)
    cls, seps = [0], [n for n in range(T) if n not in (0, *question, *context)]
    outside = [n for n in range(T) if n not in answer]

    def to(rows, columns):
        return maps[:, :, list(rows)][..., list(columns)].sum(-1).mean(-1)

    def step(offset):
        rows = [n for n in range(T) if 0 <= n + offset < T]
        return np.mean([maps[:, :, n, n + offset] for n in rows], axis=0)

    repeated = {
        n: [m for m in (*question, *context) if m != n and tokens[m] == tokens[n]]
        for n in (*question, *context)
    }
    same = [maps[:, :, n, others].sum(-1) for n, others in repeated.items() if others]
    return {
        "entropy": entropy.mean(-1),
        "evenness": entropy.mean(-1) / np.log2(T),
        "distance": (maps * abs(place[:, None] - place)).sum(-1).mean(-1),
        "sinks": to(range(T), cls + seps),
        "cls": to(range(T), cls),
        "sep": to(range(T), seps),
        "previous": step(-1),
        "next": step(1),
        "itself": step(0),
        "same_word": np.mean(same, axis=0),
        "question_to_context": to(question, context),
        "context_to_question": to(context, question),
        "answer_to_question": to(answer, question),
        "question_to_answer": to(question, answer),
        "to_answer": to(outside, answer),
    }


@torch.inference_mode()
def maps_of(reader, question):
    """What the library returns for the whole question in one window [L, H, T, T], and its ids [T]."""
    windows = reader.windows([(question.question, question.context)])
    assert len(windows) == 1
    model = reader.encoder.model
    model.set_attn_implementation("eager")
    ids = torch.from_numpy(windows.ids.astype(np.int64))[None]
    types = torch.from_numpy(windows.types.astype(np.int64))[None]
    maps = model(input_ids=ids, token_type_ids=types, output_attentions=True).attentions
    return torch.stack(maps)[:, 0].double().numpy(), windows


def test_the_measures_are_those_of_the_librarys_maps():
    model = atlases.planted()
    with torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        # Softer, as a score of 60 has an error that is seen after the softmax.
        describe(model).layers[0].query.weight.mul_(0.02)
    reader = atlases.reader(model)
    for question in atlases.questions().questions:
        maps, windows = maps_of(reader, question)
        words = question.question.split(), question.context.split()
        in_question = range(1, 1 + len(words[0]))
        in_context = range(2 + len(words[0]), 2 + len(words[0]) + len(words[1]))
        answer = in_context.start + len(question.context[: question.starts[0]].split())
        tokens = windows.ids.tolist()
        expected = plain(maps, tokens, in_question, in_context, [answer])
        found = map_measures(reader, question)
        assert set(found) == {measure.name for measure in MAP_MEASURES}
        for name, values in found.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_planted_heads_have_their_numbers_and_their_roles():
    """Numbers on paper for T tokens, of which two are [SEP]; the first has no token before it."""
    reader = atlases.reader(atlases.planted())
    means = ClusterMeans((len(MEASURES), 1, len(atlases.HEADS)))
    for question in atlases.questions().questions:
        found = map_measures(reader, question)
        words = (question.question + " " + question.context).split()
        T = len(words) + 3
        previous, sep, same, uniform = ({n: v[0, head] for n, v in found.items()} for head in range(4))
        assert previous["previous"] == pytest.approx(1, abs=1e-6)
        # Only the first row, which finds nothing, attends to all alike.
        assert previous["entropy"] == pytest.approx(np.log2(T) / T, abs=1e-5)
        assert previous["distance"] == pytest.approx((T - 1 + (T - 1) / 2) / T, abs=1e-5)
        assert sep["sep"] == sep["sinks"] == pytest.approx(1, abs=1e-6)
        assert sep["entropy"] == pytest.approx(1, abs=1e-5)
        assert sep["evenness"] == pytest.approx(1 / np.log2(T), abs=1e-5)
        counts = {word: words.count(word) for word in words}
        repeated = [counts[word] for word in words if counts[word] > 1]
        assert same["same_word"] == pytest.approx(np.mean([(n - 1) / n for n in repeated]), abs=1e-5)
        assert same["entropy"] == pytest.approx((np.log2(repeated).sum() + 2) / T, abs=1e-5)
        assert uniform["evenness"] == pytest.approx(1, abs=1e-6)
        assert uniform["entropy"] == pytest.approx(np.log2(T), abs=1e-5)
        assert uniform["itself"] == uniform["cls"] == pytest.approx(1 / T, abs=1e-6)
        assert uniform["question_to_answer"] == pytest.approx(1 / T, abs=1e-6)
        assert uniform["context_to_question"] == pytest.approx(len(question.question.split()) / T, abs=1e-6)
        unknown = np.full((1, 4), np.nan)
        means.add(np.stack([found.get(measure.name, unknown) for measure in MEASURES])[None])
    # All of one paragraph each would do for the means; roles need intervals, so each is a paragraph here.
    assert role_map(means.means()).tolist() == [["previous", "[SEP]", "same word", "uniform"]]


@pytest.mark.parametrize(
    ("architecture", "seed"), [("deberta-v3", 0), ("deberta-v3", 1), ("bert", 0), ("roberta", 0)]
)
def test_no_head_of_a_random_model_has_a_role_but_uniform(tmp_path, architecture, seed):
    """At the usual scale of new weights, and at one so large that every row has a favourite."""
    for scale in (0.02, tiny_models.SCALE):
        encoder = load_encoder(str(tiny_models.save(tmp_path / str(scale), architecture, seed=seed)))
        with torch.no_grad():
            for name, parameter in encoder.model.named_parameters():
                if parameter.dim() > 1 and "rel_embeddings" not in name:
                    parameter.mul_(scale / tiny_models.SCALE)
        reader = Reader(encoder, READING, None)
        means = ClusterMeans((len(MEASURES), 2, 2))
        for context in (CONTEXT, CONTEXT[::-1], CONTEXT[60:]):
            start = 4
            question = Question("q", "", context, QUESTION, context, (context[start : start + 9],), (start,))
            found = map_measures(reader, question)
            unknown = np.full((2, 2), np.nan)
            means.add(np.stack([found.get(measure.name, unknown) for measure in MEASURES])[None])
        roles = set(role_map(means.means()).ravel())
        assert roles <= {"uniform", NO_ROLE}
        assert scale == tiny_models.SCALE or roles == {"uniform"}


def test_roles_need_the_lower_end_and_the_first_counts():
    lows = {role.measure: np.full((1, 3), np.nan) for role in ROLES}
    assert roles_of(lows).tolist() == [[NO_ROLE] * 3]
    lows["previous"][0] = 0.49, 0.5, 0.9
    lows["same_word"][0, 2] = 0.3
    assert roles_of(lows).tolist() == [[NO_ROLE, "previous", "same word"]]
    assert all(role.measure in BY_NAME for role in ROLES)
    assert [role.rule for role in ROLES][:2] == ["evenness ≥ 0.95", "same_word ≥ 0.3"]


def test_a_question_without_answer_says_nothing_about_answers(reader_of):
    found = map_measures(reader_of("deberta-v3"), asked("Who?", CONTEXT))
    for name in ("answer_to_question", "question_to_answer", "to_answer"):
        assert np.isnan(found[name]).all()
    assert np.isfinite(found["question_to_context"]).all()


def test_several_windows_count_by_their_rows(reader_of):
    reader = reader_of("bert")
    question = asked(QUESTION, CONTEXT, "Normandy")
    windows = reader.windows([(QUESTION, CONTEXT)])
    assert len(windows) > 1
    found = map_measures(reader, question)
    # Rows sum to 1 in every window, so what goes to sinks, question and context does.
    everywhere = found["sinks"] + found["context_to_question"] * 0
    assert (everywhere > 0).all()
    assert np.isfinite(found["question_to_answer"]).all()


def test_terms_are_those_of_the_shares(reader_of):
    from probes.term_shares import read_term_shares

    reader = reader_of("deberta-v3")
    question = asked("Who wrote it?", CONTEXT)
    found = term_measures(reader, question)
    shares = read_term_shares(reader, "Who wrote it?", CONTEXT)
    sizes = np.stack([found[f"{term}_size"] for term in ("c2c", "c2p", "p2c")], axis=2)
    np.testing.assert_allclose(sizes / sizes.sum(2, keepdims=True), shares.overall(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["c2p_moved"], shares.moved[:, :, 1], rtol=0, atol=1e-7)
    assert term_measures(reader_of("bert"), question) == {}
