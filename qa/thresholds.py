"""The no-answer threshold: which questions to refuse, tuned exactly and without fooling oneself.

Scores change only where the threshold passes a question's no-answer probability, so a sorted running sum
tries every threshold there is. The trap: the best threshold on a data set flatters the score on the same data
set; `cross_fitted_thresholds` gives each question one that was tuned on other paragraphs.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qa.errors import UserError

_ROUNDING = 1e-9


def best_threshold(
    no_answer_probabilities: ArrayLike, *, answered: ArrayLike, refused: ArrayLike
) -> tuple[float, float]:
    """The no-answer threshold with the best mean score, and that mean.

    A question is refused when its no-answer probability is greater than the threshold. Every distinct outcome
    of a threshold in [0, 1] is tried. Of all thresholds with the best mean (equal to 1e-9 of a question) the
    middle of the widest interval is returned, the lowest of equally wide ones: the choice that a small change
    of the probabilities upsets least.

    Args:
        no_answer_probabilities: in [0, 1], shape [N].
        answered: the score of each question if it is answered, shape [N].
        refused: the score of each question if it is refused, shape [N].

    Raises:
        UserError: no questions, or a probability outside [0, 1].
    """
    probabilities, if_answered, if_refused = np.stack(
        [np.asarray(array, dtype=np.float64) for array in (no_answer_probabilities, answered, refused)]
    )
    if not probabilities.size:
        raise UserError("there are no questions to choose a no-answer threshold on; give at least one")
    outside = probabilities[~((probabilities >= 0) & (probabilities <= 1))]
    if outside.size:
        raise UserError(f"a no-answer probability is {outside[0]}; it must be a number between 0 and 1")
    lows = np.unique(np.append(probabilities, 0.0))  # threshold in [lows[i], highs[i]): the same outcome
    highs = np.append(lows[1:], 1.0)
    order = np.argsort(probabilities)
    gains = np.append(0.0, np.cumsum((if_answered - if_refused)[order]))
    totals = gains[np.searchsorted(probabilities[order], lows, side="right")]
    threshold = _middle_of_widest(lows, highs, totals >= totals.max() - _ROUNDING)
    return threshold, float(np.where(probabilities > threshold, if_refused, if_answered).mean())


def _middle_of_widest(
    lows: NDArray[np.float64], highs: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> float:
    """Middle of the longest run of chosen, adjacent intervals [low, high)."""
    changes = np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8))
    starts, ends = lows[changes[:-1] == 1], highs[changes[1:] == -1]
    widest = np.argmax(ends - starts)
    low, high = float(starts[widest]), float(ends[widest])
    middle = (low + high) / 2
    # Between two neighbouring floats the middle rounds to one of them, and the upper one is outside.
    return middle if middle < high else low


def cross_fitted_thresholds(
    no_answer_probabilities: ArrayLike,
    *,
    answered: ArrayLike,
    refused: ArrayLike,
    groups: Sequence[str],
    folds: int = 5,
    seed: int = 0,
) -> NDArray[np.float64]:
    """A no-answer threshold for each question, tuned by `best_threshold` on the other folds only; shape [N].

    Folds are made of whole groups, so that no question meets a threshold that saw its context. They depend on
    the keys and the seed, not on the order of the questions.

    Args:
        no_answer_probabilities: in [0, 1], shape [N].
        answered: the score of each question if it is answered, shape [N].
        refused: the score of each question if it is refused, shape [N].
        groups: the paragraph key of each question, length N.
        folds: how many; with fewer groups, each group is its own fold.
        seed: of the split into folds.

    Raises:
        UserError: fewer than two groups or folds, or a probability outside [0, 1].
    """
    probabilities, if_answered, if_refused = (
        np.asarray(array, dtype=np.float64) for array in (no_answer_probabilities, answered, refused)
    )
    keys, group_of = np.unique(np.array(groups, dtype=object), return_inverse=True)
    if min(len(keys), folds) < 2:
        raise UserError(
            f"{folds} folds over {len(keys)} paragraphs leave nothing to tune the no-answer threshold on; "
            "use at least 2 of both"
        )
    fold = (np.random.default_rng(seed).permutation(len(keys)) % folds)[group_of]  # [N]
    thresholds = np.empty(len(probabilities))
    for held_out in np.unique(fold):
        inside, others = fold == held_out, fold != held_out
        thresholds[inside], _ = best_threshold(
            probabilities[others], answered=if_answered[others], refused=if_refused[others]
        )
    return thresholds
