"""The render actor of a life: the product's, with the hooks in its process."""

from typing import Any

from actors.render_actor import RenderActor
from benchmarks.faults.hooks import Hooks
from benchmarks.faults.mutations import mutate


class FaultyRenderActor(RenderActor):
    """Patches the classes of its process before it makes itself of them."""

    def __init__(self, *args: Any, **kw: Any):
        Hooks.from_environment().in_actor()
        mutate()
        super().__init__(*args, **kw)
