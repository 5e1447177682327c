"""A sweep end to end: every combination is rendered once, and a wider sweep renders only what is new."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.prepare import prepare
from pipeline.render import render
from pipeline.report import write_report
from schemas.run import RenderRun


@pytest.fixture
def run_sweep(tmp_path, tiny_model, pictures, in_process):
    rows = [
        {"prompt": prompt, "style_image_uri": [f"{pictures}/{place}.png"]}
        for place, prompt in enumerate(("a cat", "a dog"))
    ]
    manifest = str(tmp_path / "manifest.parquet")
    pq.write_table(pa.Table.from_pylist(rows), manifest)

    def run(*scales: float, **values):
        sweep = {"style_scale": scales} if scales else {}
        config = RenderRun(
            manifest=manifest, model=str(tiny_model), output=str(tmp_path / "out"), sweep=sweep, **values
        )
        prepared = prepare(config)
        summary = render(prepared)
        write_report(prepared.storage, config.output)
        return summary

    return run


def test_a_sweep_is_rendered_once_and_widened(tmp_path, run_sweep):
    assert run_sweep(style_scale=0.5).rendered == 2
    first = run_sweep(0.5, 1.0)
    assert (first.records, first.rendered, first.statuses) == (4, 2, {"ok": 4})  # .5 was there: copied
    assert run_sweep(0.5, 1.0).rendered == 0
    wider = run_sweep(0.5, 1.0, 1.5)
    assert (wider.records, wider.rendered) == (6, 2)
    records = pq.read_table(tmp_path / "out" / "records").to_pylist()
    assert [(record["variant"], record["style_scale"]) for record in records] == [
        (f"style_scale={scale}", scale) for _ in range(2) for scale in (0.5, 1.0, 1.5)
    ]
    assert len({record["seed"] for record in records}) == 2
    assert len({record["sha256"] for record in records}) == 6
    assert "3 combinations of style_scale" in (tmp_path / "out" / "run" / "report.html").read_text()
