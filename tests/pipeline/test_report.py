"""The report: what it says, that it is safe to open, that it stays small."""

import json
import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from actors.storage import Storage, join
from pipeline.finished import open_output
from pipeline.page import script_json
from pipeline.report import report_html, write_report
from pipeline.report_numbers import ReportNumbers
from schemas.run import InfrastructureError, UsageError
from tests.support.outputs import HOSTILE, ok_record, write_output, write_records


def page_of(folder: Path) -> tuple[str, dict]:
    html = Path(write_report(Storage(), str(folder))).read_text(encoding="utf-8")
    return html, json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1]
    )


def numbers_of(folder: Path) -> ReportNumbers:
    return ReportNumbers(open_output(Storage(), str(folder)))


def test_the_page_says_what_was_made_what_failed_and_what_it_cost(tmp_path):
    records = write_output(tmp_path / "out", 48)
    html, data = page_of(tmp_path / "out")
    assert "45 of 48 videos are made" in html
    assert "asset_not_found" in html
    assert "there is no such object" in html
    assert "$0.87" in html  # 48 rows x 13 s x 2 GPUs at $2.50
    assert html.count("<svg") == 6
    assert data["rows"]["id"] == [record["row_id"] for record in records]
    assert data["rows"]["seed"][0] == str(records[0]["seed"])  # more than a JavaScript number holds
    assert data["rows"]["video"][7] is None
    video = tmp_path / "out" / "run" / data["rows"]["video"][0]
    assert video.resolve() == Path(records[0]["video_uri"])
    commit = data["rows"]["commit"][0]
    assert commit == f"../commits/{records[0]['record_id'][:2]}/{records[0]['record_id']}.json"


def test_hostile_text_stays_text(tmp_path):
    write_output(tmp_path / "out", 4)
    record = ok_record(HOSTILE, HOSTILE, [f"javascript:{HOSTILE}", "https://h/x.png?token=secret"], meta=HOSTILE,
                       node=HOSTILE, run_id=HOSTILE)  # fmt: skip
    failed = ok_record("f", HOSTILE, ["a"], status="failed", error_class=HOSTILE, error=HOSTILE + "\u2028")
    write_records(tmp_path / "out", [record, failed])
    html, data = page_of(tmp_path / "out")
    assert html.count("<script") == html.count("</script") == 2
    assert "<img" not in html
    assert data["prompts"] == [HOSTILE]
    assert "secret" not in html
    links = [style["href"] for styles in data["styles"] for style in styles]
    assert not any((link or "").startswith("javascript") for link in links)


def test_json_in_a_script_cannot_end_it():
    text = script_json({"a": "</script><!-- \u2028 &"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!-- \u2028 &"}


def test_nothing_from_outside_is_loaded(tmp_path):
    write_output(tmp_path / "out", 4)
    html, _ = page_of(tmp_path / "out")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?!data:)([^"]+)"', html)
    assert loaded == []


def test_records_that_share_a_video_count_its_time_once(tmp_path):
    write_output(tmp_path / "out", 2)
    one = ok_record("a", "p", ["s"], timings=dict.fromkeys(("denoise_s", "decode_s"), 5.0), size_bytes=100)
    write_records(tmp_path / "out", [one, one | {"row_id": "b", "record_id": "f" * 32}])
    numbers = numbers_of(tmp_path / "out")
    assert numbers.device_s[numbers.is_first].sum() == 10.0
    assert numbers.size_bytes == 100


def test_the_timeline_adds_up(tmp_path):
    records = write_output(tmp_path / "out", 60)
    numbers = numbers_of(tmp_path / "out")
    timeline = numbers.timeline(2, "night")
    assert timeline.videos.sum() == numbers.is_first.sum() == 57
    at_work = sum(share.sum() for share in timeline.busy.values()) * timeline.step_s
    assert at_work == pytest.approx(numbers.device_s[numbers.is_first].sum())
    assert 0.5 < timeline.utilisation < 1.1
    assert numbers.timeline(2, "another") is None
    assert numbers.runs()[0]["videos"] == 57
    assert len(records) == 60


def test_a_run_of_one_video_has_a_report(tmp_path):
    write_output(tmp_path / "out", 1)
    assert "All 1 videos are made" in page_of(tmp_path / "out")[0]


def test_an_output_without_any_video_has_a_report(tmp_path):
    write_output(tmp_path / "out", 2)
    write_records(tmp_path / "out", [])
    assert "0 of 0 videos are made" in page_of(tmp_path / "out")[0]
    failed = ok_record("a", "p", ["s"], status="failed", error_class="non_finite", error="NaN")
    write_records(
        tmp_path / "out",
        [failed | {"video_uri": None, "timings": None, "prompt": None, "style_image_uri": None}],
    )
    assert "0 of 1 videos are made" in page_of(tmp_path / "out")[0]


def test_an_untrained_model_is_said_at_the_top(tmp_path):
    write_output(tmp_path / "out", 3, trained=False)
    assert "UNTRAINED" in page_of(tmp_path / "out")[0]


def test_of_many_records_the_failed_worst_and_slowest_are_listed(tmp_path):
    write_output(tmp_path / "out", 200, videos=1)
    html = report_html(open_output(Storage(), str(tmp_path / "out")), max_rows=40)
    numbers = numbers_of(tmp_path / "out")
    listed = numbers.to_list(40)
    assert len(listed) == 40
    assert set(np.flatnonzero(~numbers.ok)) <= set(listed)
    assert np.nanargmin(np.where(numbers.ok, numbers.scores["clip_style"], np.nan)) in listed
    assert np.argmax(numbers.device_s) in listed
    assert "lists 40 of 200 records" in html


def test_a_moved_output_still_has_its_report(tmp_path):
    write_output(tmp_path / "out", 4)
    (tmp_path / "out").rename(tmp_path / "moved")
    _, data = page_of(tmp_path / "moved")
    assert (tmp_path / "moved" / "run" / data["rows"]["video"][0]).exists()


def test_pictures_that_may_not_be_read_are_not_shown(tmp_path):
    write_output(tmp_path / "out", 3, styles=2)
    config = json.loads((tmp_path / "out" / "run" / "config.json").read_text())
    assert len(page_of(tmp_path / "out")[1]["thumbs"]) == 2
    config["limits"] = {"input_roots": [str(tmp_path / "elsewhere")]}
    (tmp_path / "out" / "run" / "config.json").write_text(json.dumps(config))
    assert page_of(tmp_path / "out")[1]["thumbs"] == []


def test_what_is_no_output_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no run/records\.json there"):
        write_report(Storage(), str(tmp_path))


def test_a_damaged_snapshot_is_no_report_of_less(tmp_path):
    write_output(tmp_path / "out", 3)
    file = next((tmp_path / "out" / "records").iterdir())
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InfrastructureError, match=r"jobs\.reconcile"):
        write_report(Storage(), str(tmp_path / "out"))


def test_on_object_storage_it_is_the_same(s3_env, tmp_path):
    write_output(tmp_path / "out", 4)
    storage = Storage()
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            storage.write_bytes(
                join("s3://outputs/report-test", str(file.relative_to(tmp_path / "out"))), file.read_bytes()
            )
    uri = write_report(storage, "s3://outputs/report-test/")
    assert uri == "s3://outputs/report-test/run/report.html"
    assert "All 4 videos are made" in storage.read_bytes(uri).decode()


def test_gaps_between_runs_do_not_stretch_the_timeline(tmp_path):
    records = write_output(tmp_path / "out", 20)
    later = [record | {"run_id": "second", "row_key": record["row_key"][::-1],
                       "finished_at": record["finished_at"] + timedelta(days=3)} for record in records[10:]]  # fmt: skip
    write_records(tmp_path / "out", records[:10] + later)
    assert numbers_of(tmp_path / "out").timeline(2, "second").span_s < 600
    assert "Run second, in steps of" in page_of(tmp_path / "out")[0]
