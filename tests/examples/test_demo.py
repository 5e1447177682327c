"""examples/demo: with the shipped trained model where there is one, else with an untrained one; and the sheet."""

import sys

import pyarrow.parquet as pq
import pytest
from PIL import Image

import pipeline.render
from examples import demo
from examples.contact_sheet import write_contact_sheet
from examples.demo_world.captions import parse_caption
from pipeline.prepare import prepare
from schemas.run import ExitCode, RenderRun
from tests.support.rendering import render_in_process


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    """`jobs.render` without a process of its own and without Ray."""

    def render(model, manifest, output):
        run = RenderRun(manifest=manifest, model=model, output=output)
        return pipeline.render.render(prepare(run)).exit_code(0.0)

    render_in_process(monkeypatch)
    monkeypatch.setattr(demo, "render", render)


def run(monkeypatch, output):
    monkeypatch.setattr(sys, "argv", ["demo", "--output", str(output)])
    return demo.main()


def test_with_a_trained_model_it_asks_for_what_that_knows(tmp_path, monkeypatch, capfd, tiny_model):
    monkeypatch.setattr(demo, "TRAINED_MODEL", tiny_model)
    assert run(monkeypatch, tmp_path) == ExitCode.DONE
    told = capfd.readouterr().out
    assert f"model          {tiny_model}, trained from nothing by this project" in told
    records = pq.read_table(tmp_path / "render" / "records").to_pylist()
    assert [one["status"] for one in records].count("ok") == len(records) - 1
    assert all(None not in parse_caption(one["prompt"]) for one in records if one["status"] == "ok")
    assert not (tmp_path / "model").exists()


def test_without_one_it_says_untrained(tmp_path, monkeypatch, capfd, tiny_model):
    monkeypatch.setattr(demo, "TRAINED_MODEL", tmp_path / "none")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model").symlink_to(tiny_model)
    monkeypatch.setattr(demo, "ROWS", (demo.ROWS[0], demo.ROWS[-1]))
    assert run(monkeypatch, tmp_path / "out") == ExitCode.DONE
    assert "UNTRAINED" in capfd.readouterr().out
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        height = sheet.height
    write_contact_sheet(tmp_path / "out" / "render", tmp_path / "two.png", columns=2)
    with Image.open(tmp_path / "two.png") as sheet:
        assert sheet.height < height
