"""The report's part on a sweep."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from actors.storage import Storage
from pipeline.finished import open_output
from pipeline.report import report_html
from pipeline.report_numbers import ReportNumbers
from pipeline.report_sweep import SweepReport, sweep_report
from schemas.sweep import Sweep
from tests.support.outputs import write_output, write_records, write_sweep

SWEEP = Sweep(style_scale=(0.5, 1), text_guidance_scale=(7.5, 15, 30))


def report_of(folder: Path) -> SweepReport | None:
    output = open_output(Storage(), str(folder))
    return sweep_report(output, ReportNumbers(output))


def test_an_output_that_is_no_sweep_has_no_such_part(tmp_path):
    write_output(tmp_path / "out", 3)
    assert report_of(tmp_path / "out") is None


def test_each_combination_has_its_means_over_rows_that_have_all(tmp_path):
    records = write_sweep(tmp_path / "out", SWEEP, rows=3)
    report = report_of(tmp_path / "out")
    failed = {record["row_id"] for record in records if record["status"] != "ok"}
    assert len(failed) == 1
    assert "3, of which 2 are finished in all" in report.section["note"]
    table = report.section["table"]
    assert table["head"] == [
        "style_scale",
        "text_guidance_scale",
        "CLIP-Text",
        "CLIP-Style",
        "CLIP-Temp",
        "Device s a video",
    ]
    assert [row[:2] for row in table["rows"]] == [
        [style, text] for style in ("0.5", "1.0") for text in ("7.5", "15.0", "30.0")
    ]
    counted = [record["clip_text"] for record in records if record["variant"] == "style_scale=1.0,text_guidance_scale=15.0"
               and record["row_id"] not in failed]  # fmt: skip
    assert table["rows"][4][2].startswith(f"{np.mean(counted):.4f} [")
    assert len(report.section["figures"]) == 4


def test_the_grid_names_the_listed_rows(tmp_path):
    records = write_sweep(tmp_path / "out", SWEEP, rows=8)
    write_records(tmp_path / "out", [*records[:-1]])  # one combination of the last row is not there
    html = report_html(open_output(Storage(), str(tmp_path / "out")), max_rows=5)
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    sweep, rows = data["sweep"], data["rows"]
    assert [axis["values"] for axis in sweep["axes"]] == [["0.5", "1.0"], ["7.5", "15.0", "30.0"]]
    assert len(sweep["examples"]) == 8
    for example in sweep["examples"]:
        found = [place for place in example if place is not None]
        assert len({rows["id"][place] for place in found}) == 1
        variants = [data["variants"][rows["variant"][place]] for place in found]
        assert variants == [one.variant for one in SWEEP.combinations()][: len(found)]
    assert sweep["examples"][-1][-1] is None  # the incomplete row comes last


def test_values_are_ordered_by_size_and_words_by_name(tmp_path):
    write_sweep(
        tmp_path / "out", Sweep(num_inference_steps=(25, 5, 100), scheduler=("unipc", "ddim")), rows=2
    )
    axes = {axis.name: axis.values for axis in report_of(tmp_path / "out").axes}
    assert axes == {"num_inference_steps": ("5", "25", "100"), "scheduler": ("ddim", "unipc")}


def test_a_combination_that_fails_everywhere_takes_no_numbers_from_the_others(tmp_path):
    records = write_sweep(tmp_path / "out", Sweep(style_scale=(0.5, 1)), rows=3)
    failed = {"status": "failed", "error_class": "non_finite", "video_uri": None, "timings": None}
    for record in records[1::2]:
        record |= failed | dict.fromkeys(("clip_text", "clip_style", "clip_temp"))
    write_records(tmp_path / "out", records)
    first, second = report_of(tmp_path / "out").section["table"]["rows"]
    assert "[" in first[1]
    assert second[1] == "–"


@pytest.mark.parametrize("scored", [True, False])
def test_a_sweep_without_scores_or_videos_has_a_report(tmp_path, scored):
    records = write_sweep(tmp_path / "out", Sweep(style_scale=(0.5, 1)), rows=2)
    for record in records:
        record |= dict.fromkeys(("clip_text", "clip_style", "clip_temp"))
        record |= {} if scored else {"status": "failed", "video_uri": None, "timings": None}
    write_records(tmp_path / "out", records)
    assert "Side by side" in report_html(open_output(Storage(), str(tmp_path / "out")))
