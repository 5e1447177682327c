"""Renders without Ray, in the test's own process: the flow of rows is the same, and starting takes no time."""

import pyarrow.parquet as pq
import pytest


def render_in_process(patch: pytest.MonkeyPatch) -> None:
    """From here on `pipeline.render.render` runs its work units in this process."""
    import pipeline.render  # torch and the model, which most tests do without
    from actors.render_actor import RenderActor
    from pipeline.rounds import Rounds

    def render_units(prepared):
        def run_round(a_round):
            actor = RenderActor(pipeline.render.actor_config(prepared, a_round))
            for unit in pq.read_table(a_round.units_uri).to_batches(max_chunksize=1):
                yield from actor(unit).to_pylist()

        if prepared.unit_count:
            yield from Rounds(prepared, run_round, living_nodes=lambda: {"this"}).records()

    patch.setattr(pipeline.render, "render_units", render_units)
