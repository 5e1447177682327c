"""A night over several manifests: each once, what is new on top, every end told in one report."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import nightly, webhook
from pipeline.nightly import run_night
from schemas.manifest import manifest_schema
from schemas.night import NightReport, NightRun
from schemas.run import ExitCode, InfrastructureError, UsageError
from tests.support.http_server import answer

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def night(tmp_path, tiny_model):
    def night(**more):
        places = {
            "manifest": f"{tmp_path}/manifests",
            "model": str(tiny_model),
            "output": f"{tmp_path}/nights",
        }
        settings = {"actors": 1, "scores": False, "num_inference_steps": 1}
        return run_night(NightRun(**places, **settings, **more), lambda line: None)

    return night


def put(path: Path, *styles: str) -> None:
    rows = [{"prompt": f"{path.stem} {n}", "style_image_uri": [style]} for n, style in enumerate(styles)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=manifest_schema(["prompt", "style_image_uri"])), path)


def test_a_night_renders_what_is_new_and_leaves_the_rest(tmp_path, pictures, night):
    put(tmp_path / "manifests/a.parquet", f"{pictures}/0.png")
    first = night()
    assert [(one.status, one.rendered, one.reconciled) for one in first.outputs] == [("done", 1, True)]
    assert Path(first.outputs[0].report).is_file()
    assert (tmp_path / "nights/a/_SUCCESS").is_file()

    put(tmp_path / "manifests/more/b.parquet", f"{pictures}/1.png", f"{pictures}/missing.png")
    (tmp_path / "manifests/c.parquet").write_bytes(b"no parquet")
    second = night(run_id="night-2")
    assert [(Path(one.manifest).stem, one.status, one.rendered) for one in second.outputs] == [
        ("a", "unchanged", 0),
        ("c", "refused", 0),
        ("b", "failed_rows", 1),
    ]
    assert second.outputs[2].error_classes == {"asset_not_found": 1}
    assert (second.exit_code, second.rendered) == (ExitCode.USAGE, 1)
    assert (tmp_path / "nights/more/b/_SUCCESS").is_file()
    for name in ("night-2", "latest"):
        kept = json.loads((tmp_path / f"nights/nightly/{name}.json").read_text())
        assert NightReport.model_validate(kept) == second


def test_infrastructure_ends_the_night_and_says_what_was_not_begun(tmp_path, pictures, night, monkeypatch):
    for name in ("a", "b"):
        put(tmp_path / f"manifests/{name}.parquet", f"{pictures}/0.png")

    def broken(run):
        raise InfrastructureError("the store is down")

    monkeypatch.setattr(nightly, "prepare", broken)
    report = night()
    assert [(one.status, one.error) for one in report.outputs] == [
        ("infrastructure", "the store is down"),
        ("not_begun", None),
    ]
    assert report.exit_code == ExitCode.INFRASTRUCTURE


def test_hours_count_for_the_whole_night(tmp_path, pictures, night):
    for name in ("a", "b"):
        put(tmp_path / f"manifests/{name}.parquet", f"{pictures}/0.png")
    report = night(max_hours=1e-9)
    assert [one.status for one in report.outputs] == ["stopped", "not_begun"]
    assert (report.exit_code, report.rendered) == (ExitCode.STOPPED, 0)


def test_a_prefix_without_manifests_is_refused(night, tmp_path):
    (tmp_path / "manifests").mkdir()
    with pytest.raises(UsageError, match=r"no .parquet file"):
        night()


class TestWebhook:
    REPORT = NightReport(
        run_id="n", started_at="", finished_at="", exit_code=0, rendered=0, spent_usd=None, outputs=[]
    )

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr(webhook, "_PAUSE_S", 0.0)

    def test_it_is_tried_again_and_may_lie_in_a_file(self, http_server, tmp_path):
        file = tmp_path / "hook"
        file.write_text(http_server.on("/hook", answer(503), answer(200)) + "\n")
        assert webhook.post(self.REPORT, str(file), ("127.0.0.1",)) == "sent"
        assert len(http_server.requests) == 2

    def test_its_failure_is_a_sentence_without_the_url(self, http_server):
        url = http_server.on("/secret", answer(404))
        assert webhook.post(self.REPORT, url, ("127.0.0.1",)) == "not sent: HTTP status 404"
        assert (
            webhook.post(self.REPORT, "http://127.0.0.1:1/secret", ("127.0.0.1",)) == "not sent: ConnectError"
        )
        assert webhook.post(self.REPORT, "/nowhere/hook", ()).startswith("not sent: ")
        assert "secret" not in webhook.post(self.REPORT, url, ())

    @pytest.mark.parametrize("url", ["http://example.org/x", "ftp://example.org/x", "https:///x"])
    def test_only_https_or_a_host_that_is_named(self, url):
        with pytest.raises(ValueError, match="must be https"):
            NightRun(manifest="m", model="m", output="o", webhook=url)
