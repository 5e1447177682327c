from dataclasses import fields
from types import MappingProxyType
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from schemas.manifest_run import ManifestRun
from schemas.presets import PRESETS, PresetValues
from schemas.run import ExitCode, InfrastructureError, RenderRun, UsageError
from schemas.settings import DepthNormalization, RenderSettings, Scheduler
from schemas.speed import SpeedSettings
from stylecrafter.depth import NORMALISATIONS
from stylecrafter.sampling import SAMPLERS
from stylecrafter.speed import SpeedOptions

GOOD: dict[str, Any] = {"manifest": "m.parquet", "model": "model/", "output": "s3://bucket/run/"}


def test_exit_codes_are_the_documented_ones() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "DONE_WITH_FAILED_ROWS": 1,
        "USAGE": 2,
        "INFRASTRUCTURE": 3,
        "STOPPED": 4,
        "INTERNAL": 70,
    }


def test_a_config_is_frozen_and_trailing_slashes_do_not_matter() -> None:
    run = RenderRun(**GOOD)
    assert (run.model, run.output) == ("model", "s3://bucket/run")
    with pytest.raises(ValidationError, match="frozen"):
        run.output = "elsewhere"  # type: ignore[misc]


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="batchsize"):
        RenderRun(**GOOD, batchsize=3)


@pytest.mark.parametrize("output", ["https://host/out", "gs://bucket/out", "ftp://x"])
def test_an_output_goes_to_disk_or_s3_only(output: str) -> None:
    with pytest.raises(ValidationError, match="is not one of file, s3"):
        RenderRun(**(GOOD | {"output": output}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("manifest", " "),
        ("run_id", "a/b"),
        ("seed", -1),
        ("limit", 0),
        ("batch_size", 0),
        ("max_failed_fraction", 1.1),
        ("max_failed_fraction", float("nan")),
        ("gpus_per_actor", 2),
        ("dtype", "int8"),
        ("eta", -0.5),
        ("crf", 52),
        ("limits", {"fetch_timeout_s": 0}),
        ("limits", {"input_schemes": ["ftp"]}),
    ],
)
def test_a_value_out_of_bounds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        RenderRun(**(GOOD | {field: value}))


def test_setting_overrides_hold_only_what_was_set() -> None:
    overrides = RenderRun(**GOOD, num_frames=8, style_scale=0.0).setting_overrides()
    assert (overrides["num_frames"], overrides["style_scale"]) == (8, 0.0)
    assert "height" not in overrides


def test_a_preset_gives_what_the_run_does_not() -> None:
    assert RenderRun(**GOOD).setting_overrides() == {}
    fast = PRESETS["fast"].settings
    assert RenderRun(**GOOD, preset="fast").setting_overrides() == fast
    own = RenderRun(**GOOD, preset="fast", num_inference_steps=5).setting_overrides()
    assert own == {**fast, "num_inference_steps": 5}


def test_a_preset_s_options_for_speed_give_way_to_the_run_s(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = MappingProxyType({"channels_last": True, "attention_broadcast": (2, 4, 6)})
    monkeypatch.setitem(PRESETS, "fast", PresetValues(MappingProxyType({}), speed))
    assert RenderRun(**GOOD, preset="fast").speed == SpeedSettings(**speed)
    for given in ({"attention_broadcast": None}, SpeedSettings(attention_broadcast=None)):
        run = RenderRun(**GOOD, preset="fast", speed=given)
        assert run.speed == SpeedSettings(channels_last=True)
        assert RenderRun.model_validate(run.model_dump()) == run


def test_what_a_preset_sets_may_be_swept() -> None:
    run = RenderRun(**GOOD, preset="fast", sweep={"num_inference_steps": (4, 8)})
    assert run.sweep.axes == {"num_inference_steps": (4, 8)}
    assert run.with_preset().num_inference_steps is None


def test_a_preset_written_out_outlives_the_table_of_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = RenderRun(**GOOD, preset="fast").with_preset().model_dump(mode="json")
    before = RenderRun(**GOOD, preset="fast").setting_overrides()
    monkeypatch.setitem(PRESETS, "fast", PRESETS["quality"])
    assert RenderRun.model_validate(kept).setting_overrides() == before


def test_presets_hold_settings_and_options_that_exist() -> None:
    for preset in PRESETS.values():
        RenderSettings(**preset.settings)
        SpeedSettings(**preset.speed)


def test_user_errors_and_infrastructure_errors_are_told_apart() -> None:
    assert issubclass(UsageError, ValueError)
    assert not issubclass(InfrastructureError, ValueError)


def test_a_manifest_run_has_one_source() -> None:
    assert ManifestRun(source="a.csv", output="m.parquet").source == "a.csv"
    assert ManifestRun(**{"from": "a.csv"}, output="m.parquet").source == "a.csv"
    for given in ({}, {"prompts": "p.txt"}, {"styles": "s"}, {"source": "a.csv", "prompts": "p.txt"}):
        with pytest.raises(ValidationError, match="--from"):
            ManifestRun(output="m.parquet", **given)


@pytest.mark.parametrize("output", ["m.csv", "folder", "https://host/m.parquet"])
def test_a_manifest_is_a_parquet_file_on_disk_or_s3(output: str) -> None:
    with pytest.raises(ValidationError, match=r"parquet|file, s3"):
        ManifestRun(source="a.csv", output=output)


def test_speed_has_a_field_for_each_option_of_the_model_s() -> None:
    theirs = {field.name: field.default for field in fields(SpeedOptions)}
    ours = SpeedSettings().model_dump()
    assert ours.pop("cpu_offload") is False
    assert ours == theirs


def test_schedulers_are_the_model_s_samplers() -> None:
    assert get_args(Scheduler) == SAMPLERS
    assert get_args(DepthNormalization) == NORMALISATIONS


def test_speed_is_told_where_it_changes_pixels() -> None:
    assert SpeedSettings(compile=True, vae_slicing=True).of_records() is None
    assert SpeedSettings(attention_broadcast=(2, 4, 6)).of_records() == '{"attention_broadcast": [2, 4, 6]}'
