"""What a render actor is built from, apart from the actor: a plan need not import torch."""

from dataclasses import dataclass

from actors.records import Provenance
from schemas.run import FetchLimits


@dataclass(frozen=True)
class ActorConfig:
    """What a render actor is built from; small and picklable."""

    model: str
    output: str
    device: str
    threads: int
    batch_size: int
    scores: bool
    limits: FetchLimits
    provenance: Provenance
