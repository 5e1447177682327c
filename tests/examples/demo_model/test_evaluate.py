"""examples/demo_model/evaluate, end to end at a tiny size: manifests, renders, scores, figures, table, sheet."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pipeline.render
from examples.demo_model import evaluate, scoring, variants
from examples.demo_model.conditions import EVALUATION_SEED, condition
from pipeline.prepare import prepare
from schemas.run import ExitCode, InfrastructureError, RenderRun
from tests.support.rendering import render_in_process

COUNT = 3


@pytest.fixture(scope="module")
def in_process():
    """`jobs.render` without a process of its own and without Ray; counts the rows that it renders."""
    rendered = []

    def render(variant, manifest, output, actors):
        run = RenderRun(manifest=str(manifest), model=str(variant.model), output=str(output), scores=False)
        prepared = prepare(run)
        rendered.extend(range(prepared.plan.to_render.total()))
        assert pipeline.render.render(prepared).exit_code(0.0) == ExitCode.DONE

    with pytest.MonkeyPatch.context() as patch:
        render_in_process(patch)
        patch.setattr(evaluate, "render", render)
        yield rendered


@pytest.fixture(scope="module")
def arguments(small_model, random_judges, random_clip, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluation")
    return [
        *("--model", small_model, "--stage1", small_model, "--ablation", f"fixed_fusion={small_model}"),
        *("--judges", random_judges, "--evaluation-clip", random_clip, "--output", output),
        *("--videos", COUNT, "--ablation-videos", 2),
    ]


@pytest.fixture(scope="module")
def output(arguments, in_process):
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, *arguments) == 0
    return arguments[arguments.index("--output") + 1]


def run(monkeypatch, *given):
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, given)])
    return evaluate.main()


def test_metrics_hold_figures_variants_and_how(output, small_model):
    found = json.loads((output / "metrics.json").read_text())
    names = {one["name"] for one in found["figures"]}
    assert {"shape_accuracy", "style_accuracy_no_adapter", "style_accuracy_shuffled", "content_loss"} < names
    assert set(found["variants"]) == {
        *("full", "no_adapter", "shuffled", "stage1", "fixed_fusion", "true_clips"),
    }
    assert found["variants"]["full"]["shape"]["n"] == COUNT
    assert found["variants"]["fixed_fusion"]["shape"]["n"] == 2
    assert found["how"]["models"]["full"] == (small_model / "fingerprint").read_text().strip()


def test_table_scores_and_sheet_are_written(output):
    assert len((output / "table.md").read_text().splitlines()) == 2 + 6
    scores = pq.read_table(output / "scores.parquet").to_pandas()
    assert scores.groupby("variant").size().to_dict() == {
        "full": 3,
        "no_adapter": 3,
        "shuffled": 3,
        "stage1": 3,
        "fixed_fusion": 2,
        "true_clips": 3,
    }
    with Image.open(output / "contact_sheet.png") as sheet:
        assert sheet.width > 5 * 128


def test_variants_share_prompts_and_noise_and_differ_in_what_they_are_about(output):
    rows = {
        name: pq.read_table(output / "variants" / name / "render" / "records").to_pylist()
        for name in ("full", "no_adapter", "shuffled")
    }
    for full, other, shuffled in zip(*rows.values(), strict=True):
        assert full["prompt"] == other["prompt"] == shuffled["prompt"]
        assert full["seed"] == other["seed"] == shuffled["seed"]
        assert full["style_image_uri"] == other["style_image_uri"] != shuffled["style_image_uri"]
        assert (full["style_scale"], other["style_scale"]) == (1, 0)


def test_the_same_command_renders_nothing_twice(output, arguments, in_process, monkeypatch, capsys):
    before = len(in_process)
    assert before == 4 * COUNT + 2
    assert run(monkeypatch, *arguments) == 0
    assert len(in_process) == before
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["name"] == "content_loss"


def test_another_number_of_videos_needs_another_output(output, arguments, monkeypatch, capsys):
    assert run(monkeypatch, *arguments, "--videos", 2) == 2
    assert "give the same --videos as before, or another --output" in capsys.readouterr().err


def test_a_row_without_video_is_named(output):
    with pytest.raises(ValueError, match="1 of 4 rows have no video, the first is 0003"):
        scoring.read_videos(output / "variants" / "full" / "render", 4)


def test_nobody_gets_its_own_reference_when_shuffled(tmp_path):
    shuffled = variants.Variant("shuffled", "", tmp_path, 400, shuffled=True).references()
    assert sorted(shuffled) == list(range(400))
    assert all(of != index for index, of in enumerate(shuffled))


@pytest.mark.parametrize("given", ["full=x", "no name=x", "nothing", "empty="])
def test_ablations_need_a_name_of_their_own(given, arguments, monkeypatch, capsys):
    assert run(monkeypatch, *arguments, "--ablation", given) == 2
    assert "ablation" in capsys.readouterr().err


def test_a_render_that_failed_stops_the_evaluation(tmp_path):
    variant = variants.Variant("full", "full model", tmp_path / "no-model", 1)
    with pytest.raises(InfrastructureError, match=r"full: .*jobs\.render .* ended with exit code 2"):
        variants.render(variant, tmp_path / "no.parquet", tmp_path / "out", 1)


def test_true_clips_are_their_own_best(random_judges):
    from examples.demo_model.judges import WEIGHTS, Judges

    if not (WEIGHTS / "metrics.json").is_file():
        pytest.skip("the judges are not trained yet: python -m examples.demo_model.train_judges")
    asked = [condition(EVALUATION_SEED, i) for i in range(24)]
    found = scoring.judged_right(Judges.load(), scoring.true_frames(asked), asked, scoring.JUDGED)
    assert np.mean([right.mean() for right in found.values()]) > 0.9
