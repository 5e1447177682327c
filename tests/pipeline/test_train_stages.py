"""What each stage of training changes in the exported model, and what the switches of a run do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from actors.storage import Storage
from pipeline.train_model import load_model
from schemas.train_run import (
    AdapterRun,
    TrainBaseRun,
    TrainDepthRun,
    TrainJointRun,
    TrainRun,
    TrainStyleRun,
    TrainTemporalRun,
)
from stylecrafter import StyleCrafterPipeline
from stylecrafter.parameter_groups import ADAPTER_GROUPS, group_of
from tests.support.training import job_of, samples_of, tensors_of, train_here
from tests.support.training_data import write_clip, write_manifest, write_picture

RUNS: dict[str, type[TrainRun]] = {
    "base": TrainBaseRun,
    "style": TrainStyleRun,
    "temporal": TrainTemporalRun,
    "joint": TrainJointRun,
    "depth": TrainDepthRun,
}
UNCHANGED = 1e-30  # a learning rate that moves no float32


@pytest.fixture
def make(training_model: Path, demo_world: str, tmp_path: Path) -> Callable[..., Any]:
    """A small run of a stage: two steps, no decay, the last weights exported."""

    def run(stage: str, **given: Any) -> Any:
        values: dict[str, Any] = {
            "data": demo_world,
            "model": str(training_model),
            "output": str(tmp_path / "out"),
            "steps": 3,
            "warmup_steps": 0,
            "learning_rate": 1e-3,
            "schedule": "constant",
            "weight_decay": 0,
            "ema_decay": 0,
            "image_batch": 2,
            "validation_rows": 0,
            "samples": 0,
        }
        if stage in ("temporal", "joint"):
            values |= {"style_data": demo_world, "image_share": 0.4}
        return RUNS[stage](**values | given)

    return run


def changed(run: TrainRun, start: Path) -> set[str]:
    """Names of the tensors in the exported model that differ from the start's."""
    before, after = tensors_of(start), tensors_of(Path(run.output) / "model")
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def of_groups(start: Path, *groups: str) -> set[str]:
    return {name for name in tensors_of(start) if group_of(name) in groups}


def assert_renders(model: Path) -> None:
    pipeline = StyleCrafterPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    frames = pipeline("a circle", Image.fromarray(noise), num_inference_steps=1).frames
    assert np.asarray(frames).shape[1:] == (4, 32, 32, 3)


@pytest.mark.parametrize(
    ("stage", "given", "groups"),
    [
        ("base", {"image_share": 0.4}, ("unet.spatial", "unet.temporal")),
        ("style", {"new_adapter": False}, ADAPTER_GROUPS),
        ("temporal", {}, ("unet.temporal",)),
        ("joint", {"new_adapter": False}, ("unet.temporal", *ADAPTER_GROUPS)),
    ],
)
def test_a_stage_changes_its_parameters_and_no_others(
    stage: str, given: dict[str, Any], groups: tuple[str, ...], make: Callable[..., Any], training_model: Path
) -> None:
    run = make(stage, **given)
    train_here(run)
    assert changed(run, training_model) == of_groups(training_model, *groups)
    assert_renders(Path(run.output) / "model")


def test_the_text_encoder_learns_where_the_base_stage_says_so(
    make: Callable[..., Any], training_model: Path
) -> None:
    run = make("base", image_share=1, train_text_encoder=True)
    train_here(run)
    found = changed(run, training_model)
    assert found <= of_groups(training_model, "text_encoder", "unet.spatial")
    assert "text_encoder.text_model.embeddings.token_embedding.weight" in found
    assert "text_encoder.text_projection.weight" not in found


def test_a_new_adapter_begins_with_the_texts_keys_and_values(
    make: Callable[..., Any], training_model: Path
) -> None:
    run = make("style", steps=1, learning_rate=UNCHANGED)
    train_here(run)
    before, after = tensors_of(training_model), tensors_of(Path(run.output) / "model")
    unet = StyleCrafterPipeline.from_pretrained(training_model).unet
    for index, transformer in enumerate(unet.spatial_transformers()):
        text = transformer.transformer_blocks[0].attn2
        for name in ("to_k", "to_v"):
            ours = after[f"style_adapter.layers.{index}.{name}.weight"]
            assert torch.equal(ours, getattr(text, name).weight)
            assert not torch.equal(ours, before[f"style_adapter.layers.{index}.{name}.weight"])
    assert changed(run, training_model) <= of_groups(training_model, *ADAPTER_GROUPS)


def test_new_weights_are_a_function_of_the_seed(make: Callable[..., Any], training_model: Path) -> None:
    def adapter(seed: int) -> torch.Tensor:
        queries: torch.Tensor = load_model(make("style", seed=seed), training_model)[
            0
        ].style_adapter.state_dict()["style_transformer.queries"]
        return queries

    torch.manual_seed(5)
    first = adapter(1)
    assert torch.equal(first, adapter(1))
    assert not torch.equal(first, adapter(2))


@pytest.mark.slow
def test_a_base_from_nothing_with_another_prediction(make: Callable[..., Any], training_model: Path) -> None:
    run = make(
        "base", image_share=1, steps=1, new_unet=True, prediction_type="v_prediction", learning_rate=UNCHANGED
    )
    train_here(run)
    weights = {name for name in of_groups(training_model, "unet.spatial") if name.endswith("conv.weight")}
    assert weights <= changed(run, training_model)
    exported = StyleCrafterPipeline.from_pretrained(Path(run.output) / "model")
    assert exported.scheduler.config.prediction_type == "v_prediction"
    assert exported.generation_config["trained"] is True


# ---- Ablations ----


@pytest.mark.parametrize(
    ("fusion", "without"), [("fixed", "style_adapter.scale_"), ("append", "style_adapter.layers.")]
)
def test_another_form_of_fusion_is_trained_and_exported(
    fusion: str, without: str, make: Callable[..., Any], training_model: Path
) -> None:
    run = make("style", fusion=fusion, steps=1)
    train_here(run)
    model = Path(run.output) / "model"
    assert json.loads((model / "style_adapter" / "config.json").read_text())["fusion"] == fusion
    after = tensors_of(model)
    assert not any(name.startswith((without, "style_adapter.scale_")) for name in after)
    before = tensors_of(training_model)
    assert all(
        torch.equal(after[name], before[name]) for name in before if not name.startswith("style_adapter.")
    )
    assert_renders(model)


def test_without_augmentation_the_reference_is_the_target_in_the_references_size(
    make: Callable[..., AdapterRun], training_model: Path
) -> None:
    def batches(augment: bool) -> list[Any]:
        plan = job_of(make("style", augment_references=augment)).plan
        return list(samples_of(plan, range(12)))  # two epochs

    def epochs(augment: bool) -> tuple[np.ndarray, np.ndarray]:
        """References by caption and pixels of the target, the same order in both epochs."""
        rows = [
            (batch.target_BTHWC[i].tobytes(), batch.reference_B3HW[i])
            for batch in batches(augment)
            for i in range(2)
        ]
        first, second = sorted(rows[:12], key=lambda row: row[0]), sorted(rows[12:], key=lambda row: row[0])
        return np.stack([row[1] for row in first]), np.stack([row[1] for row in second])

    plain, again = epochs(augment=False)
    assert np.array_equal(plain, again)
    cropped, otherwise = epochs(augment=True)
    assert not any(np.array_equal(*pair) for pair in zip(cropped, otherwise, strict=True))
    assert not any(np.array_equal(*pair) for pair in zip(cropped, plain, strict=True))
    targets = zip(batches(True), batches(False), strict=True)
    assert all(np.array_equal(one.target_BTHWC, other.target_BTHWC) for one, other in targets)


@pytest.mark.slow
def test_gradient_checkpointing_changes_memory_and_nothing_else(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    models = []
    for name, saves in (("a", False), ("b", True)):
        run = make("temporal", output=str(tmp_path / name), gradient_checkpointing=saves)
        train_here(run)
        models.append(tensors_of(tmp_path / name / "model"))
    assert all(torch.allclose(models[0][name], models[1][name], rtol=1e-5, atol=1e-7) for name in models[0])


@pytest.mark.slow
def test_a_model_stored_in_half_precision_is_trained_in_single(
    make: Callable[..., Any], training_model: Path, tmp_path: Path
) -> None:
    half = StyleCrafterPipeline.from_pretrained(training_model).to(dtype=torch.float16)
    half.save_pretrained(tmp_path / "half")
    run = make("joint", model=str(tmp_path / "half"), new_adapter=False, steps=2)
    _, model = load_model(run, Storage().local_copy(run.model))
    assert {parameter.dtype for parameter in model.trainable_parameters().values()} == {torch.float32}
    train_here(run)


def test_the_depth_stage_adds_a_depth_adapter_and_changes_nothing_else(
    make: Callable[..., Any], training_model: Path, tmp_path: Path
) -> None:
    rows = [
        {"uri": name, "caption": "x", "depth_uri": depth}
        for name, depth in (
            (write_clip(tmp_path / "a.mp4", 0), write_clip(tmp_path / "a_depth.mp4", 90)),
            (write_clip(tmp_path / "b.mp4", 60), write_clip(tmp_path / "b_depth.mp4", 10)),
            (write_picture(tmp_path / "c.png", 1), write_picture(tmp_path / "c_depth.png", 2)),
            (write_picture(tmp_path / "d.png", 3), None),
        )
    ]
    data = write_manifest(tmp_path / "depth.parquet", rows)
    run = make(
        "depth", data=data, image_share=0.5, image_batch=1, validation_rows=1, samples=1, sample_steps=1
    )
    train_here(run)
    before, after = tensors_of(training_model), tensors_of(Path(run.output) / "model")
    new = {name for name in after if name.startswith("depth_adapter.")}
    assert new == after.keys() - before.keys() != set()
    assert all(torch.equal(before[name], after[name]) for name in before)
    [grid] = (Path(run.output) / "samples").glob("*.png")
    # depth, target, and as many frames as a video has, with 2 pixels around each
    assert Image.open(grid).size == ((2 + 4) * (32 + 4), 32 + 4)
    again = make(
        "depth",
        data=data,
        new_depth_adapter=False,
        model=f"{run.output}/model",
        output=str(tmp_path / "more"),
    )
    train_here(again)
    assert_renders(Path(again.output) / "model")
