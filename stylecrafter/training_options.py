"""What a training stage can be told, apart from data and optimiser."""

from __future__ import annotations

from dataclasses import dataclass, fields

STAGES = ("base", "style", "temporal", "joint", "depth")
STYLE_STAGES = ("style", "joint")
"""The stages that train the adapter."""

_SHARES = ("drop_text", "drop_style", "high_noise_share")


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the objective; the defaults are the plain published one with 10 % dropout of each condition.

    Attributes:
        min_snr_gamma: gamma of min-SNR weighting (Hang et al. 2023, 5 there); None weighs all timesteps alike.
        noise_offset: standard deviation of what is added to the noise of a whole channel, all frames alike;
            the weights of StyleCrafter-SDXL had .05 in their last phase.
        shared_noise: share of the noise's variance that all frames of a clip have in common, in [0, 1).
        high_noise_share: share of the rows whose timestep comes from the noisiest quarter alone; the other
            rows' come from all timesteps.
        drop_text: share of the rows that get the empty prompt.
        drop_style: share of the rows that get no style.
        scale_penalty: weight of the mean square of the predicted fusion scales, added to a row's loss.
        train_text_encoder: the text encoder learns too (base stage only).
        copy_text_projections: the style keys and values start as copies of the text's (stages that train
            the adapter); what an adapter has learned before is overwritten.
        vae_chunk_frames: frames that the VAE encodes together.

    Raises:
        ValueError: a value out of range.
    """

    min_snr_gamma: float | None = None
    noise_offset: float = 0.0
    shared_noise: float = 0.0
    high_noise_share: float = 0.0
    drop_text: float = 0.1
    drop_style: float = 0.1
    scale_penalty: float = 0.0
    train_text_encoder: bool = False
    copy_text_projections: bool = False
    vae_chunk_frames: int = 8

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in _SHARES:
            _require(0 <= values[name] <= 1, name, values[name], "0 to 1")
        for name in ("noise_offset", "scale_penalty"):
            _require(0 <= values[name] < float("inf"), name, values[name], "0 or more")
        _require(0 <= self.shared_noise < 1, "shared_noise", self.shared_noise, "0 up to, but not, 1")
        _require(
            self.min_snr_gamma is None or 0 < self.min_snr_gamma < float("inf"),
            "min_snr_gamma",
            self.min_snr_gamma,
            "None and numbers above 0",
        )
        _require(self.vae_chunk_frames >= 1, "vae_chunk_frames", self.vae_chunk_frames, "1 or more")

    def check_stage(self, stage: str, fusion: str) -> None:
        """Refuse options that would have no effect in this stage with this form of fusion.

        Raises:
            ValueError: an unknown stage, or such an option.
        """
        if stage not in STAGES:
            raise ValueError(f"stage is {stage!r}; allowed are {', '.join(map(repr, STAGES))}")
        if self.train_text_encoder and stage != "base":
            raise ValueError(
                f"train_text_encoder is true in the {stage} stage; allowed in the base stage only"
            )
        for name in ("copy_text_projections", "scale_penalty"):
            if getattr(self, name) and stage not in STYLE_STAGES:
                raise ValueError(
                    f"{name} is {getattr(self, name)} in the {stage} stage; it does not train the adapter "
                    f"(allowed in {', '.join(STYLE_STAGES)})"
                )
        if self.scale_penalty and fusion != "adaptive":
            raise ValueError(
                f"scale_penalty is {self.scale_penalty} with {fusion} fusion; only adaptive fusion predicts scales"
            )


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}; allowed are {allowed}")
