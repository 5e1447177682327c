"""Evaluation of finished outputs: the numbers, what is written, what cannot be scored, comparisons."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

import pipeline.evaluate
from actors.assets import StyleImage
from actors.evaluator import VideoEvaluator
from actors.scorer import Scorer
from actors.storage import Storage
from actors.video_codec import decode_mp4, encode_mp4
from pipeline.evaluate import evaluate, evaluate_videos
from pipeline.evaluate_compare import compare
from pipeline.evaluate_present import print_comparison, print_evaluation
from pipeline.report import write_report
from schemas.review_run import EvaluateRun
from schemas.run import UsageError
from schemas.sweep import Sweep
from stylecrafter import StyleCrafterPipeline
from tests.support.outputs import FRAMES, HEIGHT, WIDTH, write_output, write_records, write_sweep


@pytest.fixture
def in_process(monkeypatch):
    """Evaluates without Ray, in this process."""

    def videos(config, records, run):
        import pyarrow as pa

        yield from VideoEvaluator(config)(pa.Table.from_pylist(records)).to_pylist()

    monkeypatch.setattr(pipeline.evaluate, "evaluate_videos", videos)


def a_run(output: Path, model: Path, **values) -> EvaluateRun:
    return EvaluateRun(output=str(output), finished=True, clip=str(model), resamples=200, **values)


def printed(show, value, width=200) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(value, console)
    return console.export_text()


def test_scores_are_those_of_the_scorer_on_the_decoded_frames(tmp_path, tiny_model, in_process):
    records = [record for record in write_output(tmp_path / "out", 6, styles=3) if record["status"] == "ok"]
    evaluation = evaluate(a_run(tmp_path / "out", tiny_model), Storage())
    rows = pq.read_table(tmp_path / "out" / "run" / "evaluation" / "rows.parquet").to_pylist()
    scorer = Scorer(StyleCrafterPipeline.from_pretrained(tiny_model), "f" * 64)
    for record, row in zip(records, rows, strict=True):
        frames = decode_mp4(Path(record["video_uri"]), FRAMES, HEIGHT, WIDTH)
        with Image.open(record["style_image_uri"][0]) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        expected = scorer.score(
            frames, record["prompt"], [StyleImage(pixels, record["style_image_sha256"][0])]
        )
        for name in ("clip_text", "clip_style", "clip_temp"):
            assert row[name] == pytest.approx(getattr(expected, name), abs=1e-5)
    assert evaluation.videos == len(records) == evaluation.metrics["clip_text"].count
    assert evaluation.metrics["clip_text"].mean == pytest.approx(np.mean([row["clip_text"] for row in rows]))
    assert set(evaluation.by_style) == {record["style_image_uri"][0] for record in records}
    assert "warping_error" not in evaluation.metrics  # no network was given
    assert "dino_style" not in evaluation.metrics
    assert evaluation.models.startswith("clip=model:")


def test_a_video_of_its_own_reference_is_nearest_to_it_and_leaks_it(tmp_path, tiny_model, in_process):
    records = write_output(tmp_path / "out", 4, styles=4)
    for record in records:
        with Image.open(record["style_image_uri"][0]) as picture:
            frame = np.asarray(picture.convert("RGB").resize((WIDTH, HEIGHT)))
        encode_mp4(np.stack([frame] * FRAMES), Path(record["video_uri"]), fps=8, crf=10)
    evaluation = evaluate(a_run(tmp_path / "out", tiny_model), Storage())
    assert evaluation.metrics["style_first"].mean == 1.0
    assert evaluation.metrics["style_rank"].mean == 1.0
    assert evaluation.metrics["content_leak"].mean > 0.2
    assert evaluation.metrics["clip_style"].mean > 0.9


def test_networks_that_transformers_saved_are_taken(tmp_path, in_process):
    write_output(tmp_path / "out", 3, styles=2)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=small, vision_config=vision, projection_dim=16)).save_pretrained(
        tmp_path / "clip"
    )
    ViTModel(ViTConfig(**small, image_size=32, patch_size=8)).save_pretrained(tmp_path / "dino")
    evaluation = evaluate(a_run(tmp_path / "out", tmp_path / "clip", dino=str(tmp_path / "dino")), Storage())
    assert evaluation.metrics["dino_style"].count == 3
    assert "clip=clip:" in evaluation.models
    assert "layout=dino:" in evaluation.models


def test_what_cannot_be_scored_is_named(tmp_path, tiny_model, in_process):
    records = write_output(tmp_path / "out", 5, styles=2)
    Path(records[1]["video_uri"]).unlink()
    Path(records[2]["video_uri"]).write_bytes(b"no video")
    write_records(
        tmp_path / "out", [*records[:3], records[3] | {"style_image_sha256": ["0" * 64]}, records[4]]
    )
    evaluation = evaluate(a_run(tmp_path / "out", tiny_model), Storage())
    assert list(evaluation.errors) == ["row-00001", "row-00002", "row-00003"]
    assert "is not the picture that was rendered with" in evaluation.errors["row-00003"]
    assert evaluation.videos == 2
    text = printed(print_evaluation, evaluation)
    assert "not scored: row-00001" in text


def test_the_papers_figures_stand_beside_ours(tmp_path, tiny_model, in_process):
    write_output(tmp_path / "out", 4, styles=2)
    text = printed(print_evaluation, evaluate(a_run(tmp_path / "out", tiny_model), Storage()))
    assert "paper, 1 reference, 240 videos" in text
    assert "0.4531" in text
    assert "cannot be compared" in text
    assert "No warping error" in text


def test_two_runs_are_compared_row_by_row(tmp_path, tiny_model, in_process):
    for name, seed in (("a", 0), ("b", 0), ("c", 5)):
        write_output(tmp_path / name, 12, styles=2, seed=seed)
        evaluate(a_run(tmp_path / name, tiny_model), Storage())
    same = compare(Storage(), str(tmp_path / "a"), str(tmp_path / "b"), 200)
    assert same.rows == 11
    assert all(found.difference.mean == 0 for found in same.differences.values())
    other = compare(Storage(), str(tmp_path / "a"), str(tmp_path / "c"), 200)
    assert other.differences["clip_text"].difference.count == 11
    shown = printed(print_comparison, other, width=80)
    lines = [line for line in shown.splitlines() if line.startswith(("CLIP", "Content", "Style"))]
    assert len(lines) == len(other.differences) and all(line.split()[-1] in "AB-" for line in lines), shown


def test_runs_that_cannot_be_compared_are_refused(tmp_path, tiny_model, in_process):
    write_output(tmp_path / "a", 4, styles=2)
    write_output(tmp_path / "b", 4, styles=2)
    evaluate(a_run(tmp_path / "a", tiny_model), Storage())
    with pytest.raises(UsageError, match=r"is not evaluated; first: python -m jobs\.evaluate"):
        compare(Storage(), str(tmp_path / "a"), str(tmp_path / "b"), 200)


def test_the_report_shows_the_evaluation(tmp_path, tiny_model, in_process):
    write_output(tmp_path / "out", 8, styles=2)
    evaluate(a_run(tmp_path / "out", tiny_model), Storage())
    page = Path(write_report(Storage(), str(tmp_path / "out"))).read_text()
    assert "paper, 1 reference, 240 videos" in page
    assert "By style, worst CLIP-Style first" in page
    assert "Fusion scale by layer: mean, and 5 to 95 % of the videos" in page
    assert "Mean fusion scale of 2 styles (rows) with 4 prompts (columns)" in page


def test_the_clip_of_a_model_alone_scores_as_the_model_does(tmp_path, tiny_model, in_process):
    for part in ("text_encoder", "image_encoder", "feature_extractor"):  # the tokenizer is made again
        shutil.copytree(tiny_model / part, tmp_path / "clip" / part)
    write_output(tmp_path / "out", 2, styles=2)
    found = [evaluate(a_run(tmp_path / "out", clip), Storage()) for clip in (tiny_model, tmp_path / "clip")]
    assert found[0].metrics == found[1].metrics
    assert found[1].models.startswith("clip=clip:")


def test_a_directory_that_is_no_clip_is_refused(tmp_path, in_process):
    write_output(tmp_path / "out", 2, styles=2)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match="neither a model directory nor a CLIP"):
        evaluate(a_run(tmp_path / "out", tmp_path / "nothing"), Storage())


@pytest.mark.slow
def test_on_ray_it_is_the_same(tmp_path, tiny_model, local_ray, in_process):
    write_output(tmp_path / "out", 9, styles=3)
    run = a_run(tmp_path / "out", tiny_model, actors=1, cpus_per_actor=0.5)
    expected = json.dumps(evaluate(run, Storage()).as_json())
    pipeline.evaluate.evaluate_videos = evaluate_videos  # what `in_process` replaced
    assert json.dumps(evaluate(run, Storage()).as_json()) == expected


def test_a_sweep_is_broken_down_by_combination(tmp_path, tiny_model, in_process):
    write_sweep(tmp_path / "out", Sweep(style_scale=(0.5, 1)), rows=2, styles=2)
    evaluation = evaluate(a_run(tmp_path / "out", tiny_model), Storage())
    assert {name: means["videos"] for name, means in evaluation.by_variant.items()} == {
        "style_scale=0.5": 2,
        "style_scale=1.0": 2,
    }
    assert "style_scale=1.0" in printed(print_evaluation, evaluation)
    assert "By combination of the sweep" in Path(write_report(Storage(), str(tmp_path / "out"))).read_text()
