"""Whatever a manifest row holds, it is planned or it becomes a complete record with a reason, and both can be written."""

import json
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.commits import CommitStore
from actors.records import Provenance
from actors.storage import ObjectStat, Storage
from pipeline.manifest_reader import RawRow
from pipeline.model_info import ModelInfo
from pipeline.row_planner import RowPlanner
from schemas.manifest import COLUMNS, InvalidRowError, UnreadableValue, parse_row
from schemas.manifest_row import ManifestRow
from schemas.planned import PlannedRow, unit_rows, units_table
from schemas.record import RECORD_SCHEMA, ErrorClass, Status, records_table
from schemas.run import RenderRun

GOOD = {"prompt": "a cat", "style_image_uri": ["s3://styles/a.png"]}
MODEL = ModelInfo("model", "f" * 64, "stylecrafter", True, {}, 64, 320)
PROVENANCE = Provenance("run", "0.1", MODEL.fingerprint, True, "stylecrafter", "float32", 0)
FILE = "s3://manifests/m.parquet"

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=40)  # lone surrogates, control characters and all scripts
    | st.binary(max_size=40)
    | st.decimals()
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.builds(UnreadableValue, st.just("string value: not UTF-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
# Values near what is right reach further than noise does.
numbers = st.integers(-3, 5000) | st.floats(-2, 600) | st.integers().map(str) | st.floats().map(str)
texts = st.text(max_size=30) | st.sampled_from(
    ["../x", "a/b", "~2", "é", "e\u0301", "\u202e", " ", "x" * 10_000]
)
uris = texts | st.sampled_from(
    ["s3://styles/a.png", "http://h/x", "file:///%00", "//", "data:,x", "http://["]
)
plausible = {
    "prompt": texts,
    "style_image_uri": uris | st.lists(uris, max_size=3),
    "depth_video_uri": uris,
    "row_id": texts,
    "negative_prompt": texts,
    "mode": st.sampled_from(["video", "image", "Video"]),
}
columns = st.sampled_from([*COLUMNS, "meta_a", "meta_", "meta_\ud800", "comment"])
rows = st.fixed_dictionaries(
    {},
    optional={
        **{name: plausible.get(name, numbers) | anything for name in COLUMNS},
        "meta_a": anything,
        "meta_\udcff": anything,
    },
).map(lambda values: {**GOOD, **values})


class Assets:
    """Stands for the object store: every picture exists."""

    def probe(self, location: str) -> ObjectStat:
        return ObjectStat(location, 10, "v1")

    probe_depth = probe


@given(rows)
@example({**GOOD, "prompt": "half \ud83d"})
@example({**GOOD, "meta_a": "\udfff"})
@example({**GOOD, "num_frames": True})
@example({**GOOD, "meta_\udcff": UnreadableValue("string value: not UTF-8")})
@example({**GOOD, "seed": Decimal("NaN")})
@example({**GOOD, "num_frames": Decimal("sNaN")})
@example({**GOOD, "style_scale": math.inf})
@example({**GOOD, "num_inference_steps": "9" * 5000})
@example({**GOOD, "meta_a": [[[[{"b": b"\xff"}]]]]})
@example({**GOOD, "meta_a": datetime.max, "meta_b": date.min, "meta_c": time.max, "meta_d": timedelta.min})
def test_a_row_is_valid_or_says_why(raw: dict[str, Any]) -> None:
    try:
        row = parse_row(raw)
    except InvalidRowError as error:
        assert error.problems
        assert all(0 < len(problem) < 1_000 and problem.isprintable() for problem in error.problems)
        assert str(error).encode()
    else:
        assert ManifestRow.model_validate(row.model_dump()) == row
        assert row.model_dump_json()
        if row.meta is not None:
            assert isinstance(json.loads(row.meta), dict)


@pytest.fixture(scope="module")
def commits(tmp_path_factory: pytest.TempPathFactory) -> CommitStore:
    return CommitStore(Storage(), str(tmp_path_factory.mktemp("output")))


@given(batch=st.lists(rows, max_size=4))
@example(batch=[{**GOOD, "prompt": "half \ud83d"}])
@example(batch=[{**GOOD, "row_id": "\ud83d"}, {**GOOD, "row_id": 7}, {"prompt": b"\xff"}])
@example(batch=[{**GOOD, "row_id": "a~2"}, {**GOOD, "row_id": "a"}, {**GOOD, "row_id": "a"}])
@example(batch=[{**GOOD, "style_image_uri": ["\ud800", None]}])
@example(batch=[{**GOOD, "prompt": "", "row_id": row_id} for row_id in ("\u00e9", "e\u0301")])
def test_every_row_ends_as_videos_or_as_a_record_that_can_be_kept(
    commits: CommitStore, batch: list[dict[str, Any]]
) -> None:
    planner = RowPlanner(
        RenderRun(manifest="m", model="model", output="o"),
        MODEL,
        Assets(),
        PROVENANCE,  # type: ignore[arg-type]
    )
    batch = [{**values, "num_samples": 1} for values in batch]  # thousands of samples would only take long
    outcomes = list(planner.plan([RawRow(values, FILE) for values in batch]))
    assert len(outcomes) == len(batch)
    planned = [outcome for outcome in outcomes if isinstance(outcome, PlannedRow)]
    assert unit_rows(units_table([(0, planned)]).to_pylist()[0]["rows"]) == planned
    records = [outcome for outcome in outcomes if isinstance(outcome, dict)]
    assert records_table(records).schema == RECORD_SCHEMA
    for record in records:
        assert record["status"] == Status.INVALID
        assert record["error_class"] in set(ErrorClass)
        assert record["error"]
        commits.write(record)
        assert commits.read(record["record_id"]) is not None
    ids = [row.record_id for row in planned] + [record["record_id"] for record in records]
    assert len(set(ids)) == len(ids)
