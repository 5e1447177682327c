"""What a user reads when a run ends for reasons that are no row's own."""

import pytest
import ray

from actors.storage import AccessDenied
from pipeline.failures import as_run_failure
from schemas.run import InfrastructureError

pytestmark = pytest.mark.usefixtures("local_ray")


class Refused:
    def __call__(self, batch):
        raise AccessDenied(
            "s3://bucket/a.mp4 may not be written; check the bucket's policy", "s3://bucket/a.mp4"
        )


def test_the_actor_s_own_words_reach_the_user(monkeypatch):
    monkeypatch.setattr(ray.data.DataContext.get_current(), "raise_original_map_exception", True)
    with pytest.raises(InfrastructureError) as caught, as_run_failure():
        ray.data.range(2).map_batches(Refused, compute=ray.data.ActorPoolStrategy(size=1)).take_all()
    assert str(caught.value) == "s3://bucket/a.mp4 may not be written; check the bucket's policy"
