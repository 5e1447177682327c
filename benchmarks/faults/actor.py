"""The render actor of a life: the product's, with the hooks in its process."""

from typing import Any

import torch

from actors.render_actor import RenderActor
from benchmarks.faults.hooks import Hooks
from benchmarks.faults.mutations import mutate


class FaultyRenderActor(RenderActor):
    """Patches the classes of its process before it makes itself of them."""

    def __init__(self, *args: Any, **kw: Any):
        hooks = Hooks.from_environment()
        hooks.in_actor()
        mutate()
        hooks.at("starting")
        super().__init__(*args, **kw)
        torch.set_num_threads(
            1
        )  # as in the run without faults: the last bit of a pixel may depend on their number
