"""What is left of an answer when words are masked: on paper, and against masking by hand, one at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import paper
from probes import contrast_files
from probes.embedded import Embedded
from probes.faithfulness import BAND, LABELS, SHARES, faithfulness, probabilities
from probes.maps import QUESTION as ASKED
from probes.targets import Asked, Target
from probes.word_scores import words_of_layout
from probes.words import words_of
from probing import CONTEXT, QUESTION
from qa.errors import UserError
from qa.spans import decode


@pytest.fixture(scope="module")
def known():
    return Asked.of(paper.reader(), paper.QUESTION, paper.CONTEXT)


def ranked(words, first):
    """The known word alone is first, or last."""
    scores = np.array([word.text == paper.WORD for word in words], dtype=float)
    return scores if first else -scores


def test_on_the_one_word_that_matters_the_numbers_are_at_their_extremes(known):
    """Without it the probability is 0, with it alone 1; at the ends of the curve it is masked or not."""
    fixed = known.fix(Target())
    words = words_of_layout(Embedded(known, fixed.window).layout)
    found = faithfulness(
        known, fixed, {"first": ranked(words, True), "last": ranked(words, False)}, random=50
    )
    best, worst = found.curves["first"], found.curves["last"]
    assert best.full == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(best.without, [1] + 6 * [0], atol=1e-6)
    np.testing.assert_allclose(best.only, [0] + 6 * [1], atol=1e-6)
    np.testing.assert_allclose(worst.without, 6 * [1] + [0], atol=1e-6)
    np.testing.assert_allclose(worst.only, 6 * [0] + [1], atol=1e-6)
    assert best.comprehensiveness == worst.sufficiency == pytest.approx(1, abs=1e-6)
    assert best.sufficiency == worst.comprehensiveness == pytest.approx(0, abs=1e-6)
    for curve in found.random.curves:
        assert -1e-6 <= curve.comprehensiveness <= 1 + 1e-6
        # Whatever is masked without the first words is kept with only these.
        np.testing.assert_allclose(curve.without + curve.only, 1, atol=1e-6)
    assert 0.1 < found.random.comprehensiveness < 0.3  # the mean of the shares of 18 words is 0.18
    assert found.random.sufficiency == pytest.approx(1 - found.random.comprehensiveness, abs=1e-6)
    assert found.words == words


def by_hand(asked, fixed, gone):
    """The target's probability with these words masked, whole words by the characters of either text."""
    texts = {True: words_of(asked.question), False: words_of(asked.context)}
    numbers = {(word.region == ASKED, int(texts[word.region == ASKED][word.start])) for word in gone}
    scores = []
    with torch.no_grad():
        for number in range(len(asked.windows)):
            embedded = Embedded(asked, number)
            starts, asking = embedded.layout.chars[:, 0], embedded.layout.regions == ASKED
            mask = [
                start >= 0 and (bool(own), int(texts[bool(own)][start])) in numbers
                for start, own in zip(starts, asking, strict=True)
            ]
            # A token of a blank only, cut off from the word that it stands before, belongs to no word.
            last = asked.windows[number].context.stop - 1
            mask[last] = mask[last] and starts[last] < embedded.layout.chars[last, 1]
            with embedded:
                hidden = torch.where(torch.tensor(mask)[None, :, None], embedded.base, embedded.own)
                scores.append(embedded.read(hidden)[0].numpy())
    start, end = np.concatenate(scores, axis=1)
    (answer,) = decode(asked.windows, start, end, n_best=10**6)
    if fixed.span is None:
        return answer.no_answer_probability
    span = next(one for one in answer.n_best if (one.start, one.end) == (fixed.span.start, fixed.span.end))
    return span.probability


@pytest.mark.parametrize("target", [Target(), Target("no_answer")])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta-v3"])
def test_words_are_masked_in_place_in_every_window_that_holds_them(architecture, target, reader_of):
    asked = Asked.of(reader_of(architecture), QUESTION, CONTEXT)
    fixed = asked.fix(target)
    words = words_of_layout(Embedded(asked, fixed.window).layout)
    ways = np.random.default_rng(0).random((2, len(words))) < 0.4
    done = []
    found = probabilities(
        asked, fixed, ways, words=words, batch_bytes=1, progress=lambda *at: done.append(at)
    )
    for way, probability in zip(ways, found, strict=True):
        gone = [word for word, masked in zip(words, way, strict=True) if masked]
        assert probability == pytest.approx(by_hand(asked, fixed, gone), rel=1e-3, abs=1e-7)
    total = 2 * len(asked.windows)
    assert done[-1] == (total, total)
    np.testing.assert_allclose(probabilities(asked, fixed, ways, words=words), found, rtol=1e-3, atol=1e-7)


def test_curves_begin_and_end_where_all_rankings_do(reader_of):
    asked = Asked.of(reader_of("bert"), QUESTION, CONTEXT)
    fixed = asked.fix(Target())
    words = words_of_layout(Embedded(asked, fixed.window).layout)
    draw = np.random.default_rng(0)
    shares = (0.0, 0.2, 0.5, 1.0)
    rankings = {name: draw.random(len(words)) for name in ("one", "two")}
    found = faithfulness(asked, fixed, rankings, shares=shares, random=7, seed=3)
    nothing = probabilities(asked, fixed, np.ones((1, len(words)), dtype=bool), words=words)[0]
    whole = asked.answer.n_best[0].probability
    for curve in [*found.curves.values(), *found.random.curves]:
        assert curve.full == curve.without[0] == curve.only[-1] == pytest.approx(whole, rel=1e-3)
        assert curve.without[-1] == curve.only[0] == pytest.approx(nothing, rel=1e-3)
        assert curve.shares.tolist() == list(shares)
        assert curve.comprehensiveness == pytest.approx(curve.full - curve.without[1:3].mean())
        assert curve.sufficiency == pytest.approx(curve.full - curve.only[1:3].mean())
    assert len(found.random.curves) == 7
    each = np.stack([curve.without for curve in found.random.curves])
    np.testing.assert_allclose(found.random.without, np.quantile(each, BAND, axis=0))
    one, again = found, faithfulness(asked, fixed, rankings, shares=shares, random=7, seed=3)
    assert (one.random.only == again.random.only).all()


def test_no_answer_is_followed_where_it_is_the_target(known):
    fixed = known.fix(Target("no_answer"))
    words = words_of_layout(Embedded(known, fixed.window).layout)
    (curve,) = faithfulness(known, fixed, {"known": ranked(words, True)}, random=1).curves.values()
    np.testing.assert_allclose(curve.without, [0] + 6 * [1], atol=1e-6)
    assert curve.comprehensiveness == pytest.approx(-1, abs=1e-6)


def test_labels_say_which_direction_is_better():
    assert "higher is better" in LABELS["comprehensiveness"]
    assert "lower is better" in LABELS["sufficiency"]
    assert SHARES == contrast_files.SHARES


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shares": (0.0, 0.5)}, r"shares: \[0.0, 0.5\]; give ascending ones from 0 to 1"),
        ({"shares": (0.0, 0.5, 0.5, 1.0)}, "shares"),
        ({"shares": (0.0, 1.0)}, "with some between them"),
        ({"random": 0}, "at least one random ranking"),
        ({"rankings": {"short": np.zeros(2)}}, r"'short' has shape \(2,\), but the window has 18 words"),
        ({"rankings": {"odd": np.full(18, np.nan)}}, "give one finite score for each"),
    ],
)
def test_what_cannot_be_measured(known, options, said):
    options = {"rankings": {"flat": np.zeros(18)}} | options
    with pytest.raises(UserError, match=said):
        faithfulness(known, known.fix(Target()), **options)


def test_a_word_cut_by_a_window_is_masked_there_too(reader_of):
    """A window begins inside of a word: its pieces there belong to the word all the same."""
    reader = reader_of("deberta-v3")
    reader = replace(reader, reading=replace(reader.reading, max_length=40, stride=11))
    asked = Asked.of(reader, "Who?", CONTEXT)
    layouts = [Embedded(asked, number).layout for number in range(len(asked.windows))]
    starts = [{word.start for word in words_of_layout(one) if word.region != ASKED} for one in layouts]
    cut = [
        number
        for number in range(1, len(layouts))
        if min(starts[number]) not in starts[number - 1] and min(starts[number]) < max(starts[number - 1])
    ]
    assert cut
    fixed = replace(asked.fix(Target()), window=cut[0] - 1)
    words = words_of_layout(layouts[cut[0] - 1])
    inside = [word.start < min(starts[cut[0]]) < word.end for word in words]
    assert sum(inside) == 1
    found = probabilities(asked, fixed, np.array([inside]), words=words)[0]
    first = layouts[cut[0]]
    gone = [word for word, masked in zip(words, inside, strict=True) if masked]
    assert found == pytest.approx(by_hand(asked, fixed, gone), rel=1e-3)
    assert first.chars[first.regions > 2][0][0] == min(starts[cut[0]])
