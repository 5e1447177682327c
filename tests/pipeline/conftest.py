"""Two ways to run work units in tests: in this process, and on a local Ray."""

import pytest
import ray

import pipeline.render
from actors.render_actor import RenderActor
from pipeline.render import actor_config


@pytest.fixture(scope="module")
def local_ray():
    """One Ray for a module's runs; `ray_session` uses it instead of starting its own."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def in_process(monkeypatch):
    """Renders without Ray, in this process: the flow of rows is the same, and starting takes no time."""

    def render_units(prepared):
        if prepared.units:
            actor = RenderActor(actor_config(prepared))
            for unit in prepared.units:
                yield from actor.render_rows(unit)

    monkeypatch.setattr(pipeline.render, "render_units", render_units)
