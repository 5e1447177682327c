"""What a render actor is built from, apart from the actor: a plan need not import torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.records import Provenance
from schemas.run import FetchLimits
from schemas.safety import SafetySettings
from schemas.speed import SpeedSettings


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
    render_timeout_s: float = math.inf  # of one batch on the device
    alone: bool = False  # rows come one by one, and nothing else is in the process
    begun: Mapping[str, int] = field(
        default_factory=dict
    )  # record_id -> earlier attempts, where there are any
    again: bool = False  # rows may be committed already: look first
    session: str = ""  # of Ray
    stop_at: float = math.inf  # seconds since 1970, from which on no batch is begun
    speed: SpeedSettings = field(default_factory=SpeedSettings)
    safety: SafetySettings = field(default_factory=SafetySettings)
    profile: bool = False  # write a timeline
    log_format: str = "text"
    storage_patience_s: float = 0.0  # the outage of the object store that is waited for
