"""A render actor in which some rows do to their process what a test says."""

import os
import signal
import threading

from actors.render_actor import RenderActor


class FaultyActor(RenderActor):
    """A row whose prompt is `kill` ends its process without a word; one whose prompt is `hang` never ends."""

    def _load(self):
        super()._load()
        render = self._renderer.render

        def faulty(rows, references):
            prompts = {row.prompt for row in rows}
            if "kill" in prompts:
                os.kill(os.getpid(), signal.SIGKILL)
            if "hang" in prompts:
                threading.Event().wait()
            return render(rows, references)

        self._renderer.render = faulty
