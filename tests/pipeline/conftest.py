"""One local Ray for the tests of the render flow that need it."""

import pytest
import ray


@pytest.fixture(scope="module")
def local_ray():
    """One Ray for a module's runs; `ray_session` uses it instead of starting its own."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
