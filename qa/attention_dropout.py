"""What attention dropout drops: cheap to draw, and carried in the sign of the probabilities.

A probability is never negative, so its sign bit is free to say that it was dropped; the backward pass needs
nothing else. torch draws one number after another from a Mersenne twister, which takes longer than the
attention itself; numpy's SFC64 gives four 16-bit numbers at a time.

The trap: each thread needs numbers of its own. They start from one seed of torch's generator and the first
head of the thread's share, so a seed repeats a run only with the same number of threads.
"""

from __future__ import annotations

import numpy as np
import torch

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Dropout:
    """One layer's dropout in one call.

    Attributes:
        active: whether anything is dropped.
        scale: what those kept are to be multiplied by.
    """

    def __init__(self, probability: float) -> None:
        self._threshold = min(round(probability * 65536), 65535)
        self._seed = int(torch.randint(1 << 62, ())) if self._threshold else 0
        self.active = self._threshold > 0
        self.scale = 65536 / (65536 - self._threshold)

    def numbers(self, stream: int) -> np.random.SFC64:
        """A source of random numbers, another for every `stream`."""
        return np.random.SFC64([self._seed, stream])

    def sign(self, probabilities: torch.Tensor, numbers: np.random.SFC64) -> torch.Tensor:
        """`probabilities`, made negative in place where they are to be dropped."""
        if not self.active:
            return probabilities
        count, size = probabilities.numel(), probabilities.element_size()
        bits = torch.from_numpy(numbers.random_raw((count + 3) // 4).view(np.int16))[:count]
        signs = bits.lt_(self._threshold - 32768).to(INTEGERS[size]).bitwise_left_shift_(8 * size - 1)
        probabilities.view(INTEGERS[size]).bitwise_or_(signs.view_as(probabilities))
        return probabilities

    def kept(self, probabilities: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Signed probabilities with zeros for those dropped, not scaled; if there are any, in `out`."""
        return torch.clamp_min(probabilities, 0, out=out) if self.active else probabilities
