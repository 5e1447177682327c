"""What an exported model says of a style adapter that was new when training began."""

import json
import shutil
from pathlib import Path

import pytest

from actors.storage import Storage
from pipeline.train_export import export_model
from schemas.train_run import TrainRun, TrainStyleRun, TrainTemporalRun
from stylecrafter.model_directory import NEW_ADAPTER

NOTHING_TRAINED = {"names": [], "weights": [], "average": []}


@pytest.mark.parametrize(
    ("config", "given", "trained"),
    [(TrainStyleRun, {}, True), (TrainTemporalRun, {"style_data": "m.parquet"}, False)],
)
def test_an_adapter_stays_new_until_a_stage_trains_it(
    config: type[TrainRun], given: dict[str, str], trained: bool, training_model: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(training_model, tmp_path / "base")
    settings = json.loads((base / "generation_config.json").read_text()) | NEW_ADAPTER
    (base / "generation_config.json").write_text(json.dumps(settings))
    run = config(data="m.parquet", model=str(base), output=str(tmp_path / "out"), **given)
    export_model(run, base, NOTHING_TRAINED, Storage())
    model = tmp_path / "out" / "model"
    told = json.loads((model / "generation_config.json").read_text())
    assert (told["trained"], told.get("new_adapter", False)) == (trained, not trained)
    assert ("is new and **untrained**" in (model / "README.md").read_text()) is not trained
