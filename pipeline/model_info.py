"""What a run must know of its model before any worker loads it: read from the directory's small JSON files."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from actors.storage import ObjectNotFound, Storage, join
from schemas.run import UsageError
from stylecrafter import engines

_MAX_JSON_BYTES = 2**20


@dataclass(frozen=True)
class ModelInfo:
    """A model directory as the plan sees it."""

    uri: str
    fingerprint: str
    engine: str
    trained: bool
    defaults: dict[str, Any]  # its own values for the render settings
    pixel_multiple: int  # heights and widths are multiples of this
    unet_channels: int
    depth_adapter: bool = False
    fps_embedding: bool = False
    texture_layers: bool = True  # attention on more levels than the coarsest, see `style_layer_groups`
    max_frames: int | None = None  # of a video, where the engine has no way beyond

    @property
    def is_stylecrafter(self) -> bool:
        """Whether it has what other engines lack: image mode, groups of layers, attention broadcast."""
        return self.engine == engines.DEFAULT

    def defaults_for(self, mode: str) -> dict[str, Any]:
        """Its own values for the render settings of one mode, under their names in a manifest."""
        own = self.defaults | (self.defaults.get("image") or {} if mode == "image" else {})
        start, end = own.get("guidance_interval") or (None, None)
        by_group = own["style_scale"] if isinstance(own.get("style_scale"), dict) else {}
        names = {"scheduler": own.get("sampler"), "guidance_start": start, "guidance_end": end}
        if by_group:
            names |= {"style_scale": 1.0}
            names |= {f"style_scale_{group}": value for group, value in by_group.items()}
        return own | names

    def as_json(self) -> dict[str, Any]:
        """The facts as they are kept with a run."""
        return asdict(self)


def read_model_info(storage: Storage, uri: str) -> ModelInfo:
    """The facts of the model directory at `uri`.

    Raises:
        UsageError: it is not a StyleCrafter model directory, or its engine is not known.
    """
    generation = _read_json(storage, uri, "generation_config.json")
    unet = _read_json(storage, uri, "unet", "config.json")
    vae = _read_json(storage, uri, "vae", "config.json")
    index = _read_json(storage, uri, "model_index.json")
    engine = generation.get("engine")
    if engine not in engines.ENGINES:
        raise UsageError(f"model = {uri!r}: engine {engine!r} is not one of {', '.join(engines.ENGINES)}")
    for name, config in (("unet", unet), ("vae", vae)):
        if not config.get("block_out_channels"):
            raise UsageError(f"model = {uri!r}: {name}/config.json lacks block_out_channels")
    halvings = len(unet["block_out_channels"]) - 1 + len(vae["block_out_channels"]) - 1
    return ModelInfo(
        uri=uri,
        fingerprint=_read(storage, uri, "fingerprint").decode().strip(),
        engine=engine,
        trained=bool(generation.get("trained", True)),
        defaults=generation,
        pixel_multiple=2**halvings,
        unet_channels=unet["block_out_channels"][0],
        depth_adapter=bool(next(iter(index.get("depth_adapter") or ()), None)),
        fps_embedding=bool(unet.get("fps_cond")),
        texture_layers=sum("CrossAttn" in kind for kind in unet.get("down_block_types", ())) > 1,
        max_frames=unet.get("motion_max_seq_length"),
    )


def _read_json(storage: Storage, uri: str, *parts: str) -> dict[str, Any]:
    body = _read(storage, uri, *parts)
    try:
        value = json.loads(body)
    except ValueError as error:
        raise UsageError(f"model = {uri!r}: {'/'.join(parts)} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"model = {uri!r}: {'/'.join(parts)} holds no JSON object")
    return value


def _read(storage: Storage, uri: str, *parts: str) -> bytes:
    try:
        return storage.read_bytes(join(uri, *parts), max_bytes=_MAX_JSON_BYTES)
    except ObjectNotFound:
        raise UsageError(
            f"model = {uri!r}: no {'/'.join(parts)} there; expected a model directory as jobs.convert writes it"
        ) from None
