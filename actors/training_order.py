"""Which sample comes when: a pure function of the seed and the micro-batch's index.

Micro-batch m holds images exactly if floor((m + 1) * share) > floor(m * share). So the number of image
micro-batches before m is floor(m * share), and where m stands in its kind's stream needs no counting: a run
that resumes at micro-batch m looks nothing up and skips nothing through.

A position in a kind's stream is epoch * rows + index, and each epoch is a permutation of all rows.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np

from schemas.training import KINDS, Kind

_KEPT_PERMUTATIONS = 4  # two epochs of each kind: micro-batches of a border are made by several readers
# Streams of random numbers that must not depend on each other: an ablation of the references leaves the targets.
ORDER, TARGET, REFERENCE = range(3)


class TrainingOrder:
    """The order of one run.

    Args:
        batch_sizes: samples of a micro-batch of each kind.
        rows: usable rows of each kind.
        image_share: share of the micro-batches that hold images.
    """

    def __init__(
        self, seed: int, image_share: Fraction, batch_sizes: Mapping[Kind, int], rows: Mapping[Kind, int]
    ):
        self._seed = seed
        self._image_share = image_share
        self._batch_sizes = batch_sizes
        self._rows = rows
        self._permutations: OrderedDict[tuple[Kind, int], np.ndarray] = OrderedDict()

    def kind(self, micro_batch: int) -> Kind:
        before, after = self._images(micro_batch), self._images(micro_batch + 1)
        return "image" if after > before else "video"

    def positions(self, micro_batch: int) -> np.ndarray:
        """Where the samples of a micro-batch stand in their kind's stream, int64 [B]."""
        kind, images = self.kind(micro_batch), self._images(micro_batch)
        size = self._batch_sizes[kind]
        first = (images if kind == "image" else micro_batch - images) * size
        return np.arange(first, first + size, dtype=np.int64)

    def candidates(self, kind: Kind, position: int) -> Iterator[int]:
        """The row at a position, then those that stand in for it: the next ones of the epoch, then its first."""
        rows = self._rows[kind]
        epoch, index = divmod(position, rows)
        permutation = self._permutation(kind, epoch)
        yield from (int(permutation[(index + offset) % rows]) for offset in range(rows))

    def random(self, purpose: int, kind: Kind, position: int) -> np.random.Generator:
        """The random numbers of one sample in one epoch (see TARGET and REFERENCE)."""
        epoch, index = divmod(position, self._rows[kind])
        return self._generator(purpose, kind, epoch, index)

    def _permutation(self, kind: Kind, epoch: int) -> np.ndarray:
        key = (kind, epoch)
        if key not in self._permutations:
            random = self._generator(ORDER, kind, epoch, 0)
            self._permutations[key] = random.permutation(self._rows[kind])
        self._permutations.move_to_end(key)
        while len(self._permutations) > _KEPT_PERMUTATIONS:
            self._permutations.popitem(last=False)
        return self._permutations[key]

    def _generator(self, purpose: int, kind: Kind, epoch: int, index: int) -> np.random.Generator:
        # PCG64 by name: numpy's default may become another one. The seed comes last, for it may fill two words.
        entropy = [purpose, KINDS.index(kind), epoch, index, self._seed]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))

    def _images(self, micro_batch: int) -> int:
        """Image micro-batches before this one."""
        return micro_batch * self._image_share.numerator // self._image_share.denominator
