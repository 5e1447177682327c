"""The configs of the jobs that look at what was rendered: what goes together, and what the refusal says."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.review_run import EvaluateRun, ExportRun, ReportRun, StudyRun


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (ReportRun, {"output": "http://h/out"}, "scheme 'http'"),
        (EvaluateRun, {}, "give --output"),
        (EvaluateRun, {"output": "o"}, "needs --manifest and --model"),
        (EvaluateRun, {"output": "o", "manifest": "m.parquet"}, "needs --manifest and --model"),
        (EvaluateRun, {"output": "o", "manifest": "m.parquet", "finished": True}, "renders nothing"),
        (EvaluateRun, {"compare": ("a",)}, "two outputs, not 1"),
        (EvaluateRun, {"compare": ("a", "b"), "output": "o"}, "excludes"),
        (StudyRun, {"study": "s"}, "either --outputs"),
        (StudyRun, {"study": "s", "outputs": ("a", "b"), "collect": ("v",)}, "either --outputs"),
        (StudyRun, {"study": "s", "outputs": ("a", "a")}, "two or more different"),
        (ExportRun, {"output": "o"}, "either --webdataset or --huggingface"),
        (ExportRun, {"output": "o", "webdataset": "http://x/y"}, "scheme 'http'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    config: type[Any], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**values)


def test_an_evaluation_renders_as_jobs_render_does() -> None:
    run = EvaluateRun(
        manifest="m.parquet", model="d", output="o", num_frames=4, seed=3, clip="c", resamples=100
    )
    rendered = run.render_run()
    assert (rendered.manifest, rendered.model, rendered.output) == ("m.parquet", "d", "o")
    assert (rendered.num_frames, rendered.seed) == (4, 3)
    assert type(rendered).__name__ == "RenderRun"
