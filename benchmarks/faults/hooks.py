"""Faults inside the render processes: put around the product's own methods, from outside and only here.

Points that a row passes in an actor: `fetch` its pictures, `render` (begun), `rendered`, `upload` (encoded, not yet
sent), `uploaded` (the MP4 is in the store, its commit is not), `committed`; of no row: `starting` (nothing is loaded
yet). Points of the driver: `planned` (nothing is written yet), `session` (Ray has started, its actors have not),
`received` (an actor's record reached the driver), `snapshot` (all is committed, the snapshot is not made),
`snapshotted`.

Shapes: B rows of a batch, C colours, T frames, H, W pixels.
"""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.faults.actions import act
from benchmarks.faults.fault import DIRECTORY_VARIABLE, FaultDirectory


class Hooks:
    """What the patched methods of one process call."""

    def __init__(self, directory: FaultDirectory):
        self.directory = directory
        self._faults = directory.faults()
        self._row_of_key: dict[str, str] = {}
        self._key_of_uri: dict[str, str] = {}

    @classmethod
    def from_environment(cls) -> "Hooks":
        return cls(FaultDirectory(Path(os.environ[DIRECTORY_VARIABLE])))

    def at(self, point: str, row_id: str | None = None) -> None:
        """Lets happen what waits at this point for this row."""
        for fault in self._faults:
            if fault.point == point and fault.row_id in (None, row_id) and self.directory.claim(fault):
                act(fault, self.directory)

    def spoiled(self, action: str, row_id: str) -> bool:
        """Whether the row's work is to be spoiled in this way, now."""
        return any(
            fault.action == action and fault.row_id == row_id and self.directory.claim(fault)
            for fault in self._faults
            if fault.point is None
        )

    def in_actor(self) -> None:
        """Patches the classes that a render actor is made of."""
        from actors.assets import AssetLoader
        from actors.commits import CommitStore
        from actors.publisher import Publisher
        from actors.renderer import Renderer
        from actors.storage import Storage

        self.directory.log("actor")
        patch(AssetLoader, "style_image", self._fetch)
        patch(Renderer, "render", self._render)
        patch(Publisher, "publish", self._publish)
        patch(Storage, "upload", self._upload)
        patch(CommitStore, "write", self._commit)

    def _fetch(self, original: Callable[..., Any], loader: Any, ref: Any) -> Any:
        self.at("fetch", Path(ref.uri).stem)
        return original(loader, ref)

    def _render(self, original: Callable[..., Any], renderer: Any, rows: Any, references: Any) -> Any:
        for row in rows:
            self._row_of_key[row.row_key] = row.row_id
            self.directory.log("rendering", row.row_key, row.row_id)
        for row in rows:
            self.at("render", row.row_id)
            if self.spoiled("out-of-memory", row.row_id):
                raise torch.OutOfMemoryError("CUDA out of memory (injected)")
            if self.spoiled("device-error", row.row_id):
                raise RuntimeError("CUDA error: an illegal memory access was encountered (injected)")
        bad = [index for index, row in enumerate(rows) if self.spoiled("nan", row.row_id)]
        with _nan_pixels(renderer.pipeline, bad):
            outcome = original(renderer, rows, references)
        for row in rows:
            self.at("rendered", row.row_id)
        return outcome

    def _publish(
        self, original: Callable[..., Any], publisher: Any, row_key: str, *args: Any, **kw: Any
    ) -> Any:
        self._key_of_uri[publisher.video_uri(row_key)] = row_key
        return original(publisher, row_key, *args, **kw)

    def _upload(self, original: Callable[..., Any], storage: Any, local_path: Any, uri: str) -> None:
        row_key = self._key_of_uri.get(uri)
        row_id = self._row_of_key.get(row_key or "")
        self.at("upload", row_id)
        original(storage, local_path, uri)
        self.directory.log("published", row_key, row_id)
        self.at("uploaded", row_id)

    def _commit(self, original: Callable[..., Any], commits: Any, record: dict[str, Any]) -> None:
        original(commits, record)
        if record["status"] == "ok":
            self.directory.log("committed", record["row_key"], record["row_id"])
        self.at("committed", record["row_id"])


def patch(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Puts `around(original, ...)` in a method's place.

    Raises:
        AttributeError: the product has no such method any more; then the hooks must follow it.
    """
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(lambda *args, **kw: around(original, *args, **kw)))


@contextmanager
def _nan_pixels(pipeline: Any, rows: list[int]) -> Iterator[None]:
    """These rows of the batch come out of the decoder with a NaN in them."""
    if not rows:
        yield
        return
    decode = pipeline.decode_latents_to_float

    def decode_badly(latents_BCTHW: torch.Tensor, **options: Any) -> torch.Tensor:
        decoded_BCTHW = decode(latents_BCTHW, **options).clone()
        decoded_BCTHW[rows, :, 0] = float("nan")
        return decoded_BCTHW

    pipeline.decode_latents_to_float = decode_badly
    try:
        yield
    finally:
        del pipeline.decode_latents_to_float
