"""The render flow from object storage to object storage, against a real S3 server."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.prepare import prepare
from pipeline.render import render
from schemas.manifest import manifest_schema
from schemas.run import RenderRun


@pytest.fixture
def store(in_process, s3_env, tiny_model, pictures, tmp_path, monkeypatch):
    """Manifest, model and pictures in S3; rendering in this process."""
    monkeypatch.setenv("STYLECRAFTER_CACHE", str(tmp_path / "cache"))
    client = s3_env.client()
    for path in [*tiny_model.rglob("*"), *pictures.glob("*.png")]:
        if path.is_file():
            folder, root = ("model", tiny_model) if tiny_model in path.parents else ("pictures", pictures)
            key = f"{folder}/{path.relative_to(root)}"
            client.put_object(Bucket="styles", Key=key, Body=path.read_bytes())
    return s3_env


def put_manifest(store, rows):
    body = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=manifest_schema(list(rows[0]))), body)
    store.client().put_object(Bucket="styles", Key="manifest.parquet", Body=body.getvalue())


def keys(store, prefix):
    listing = store.client().list_objects_v2(Bucket="outputs", Prefix=prefix)
    return [item["Key"] for item in listing.get("Contents", [])]


def test_from_s3_to_s3_and_nothing_twice(store):
    rows = [
        {"prompt": "a cat", "style_image_uri": ["pictures/0.png"]},
        {"prompt": "a dog", "style_image_uri": ["s3://styles/pictures/1.png", "s3://styles/pictures/2.png"]},
        {"prompt": "a dog", "style_image_uri": ["s3://styles/pictures/none.png"]},
    ]
    put_manifest(store, rows)
    run = RenderRun(
        manifest="s3://styles/manifest.parquet",
        model="s3://styles/model",
        output="s3://outputs/run",
        batch_size=2,
    )
    prepared = prepare(run)
    assert keys(store, "run/") == []
    assert render(prepared).statuses == {"ok": 2, "failed": 1}
    videos = keys(store, "run/videos/")
    assert len(videos) == 2
    assert len(keys(store, "run/commits/")) == 3
    [part] = keys(store, "run/records/")
    body = store.client().get_object(Bucket="outputs", Key=part)["Body"].read()
    records = pq.read_table(io.BytesIO(body)).to_pylist()
    assert [record["error_class"] for record in records] == [None, None, "asset_not_found"]
    assert {record["video_uri"] for record in records[:2]} == {f"s3://outputs/{key}" for key in videos}

    again = render(prepare(run))
    assert (again.rendered, again.reused) == (0, 3)
    assert keys(store, "run/videos/") == videos


def test_credentials_are_in_no_object_that_a_run_writes(store):
    put_manifest(store, [{"prompt": "a cat", "style_image_uri": ["pictures/0.png"]}])
    render(
        prepare(
            RenderRun(
                manifest="s3://styles/manifest.parquet", model="s3://styles/model", output="s3://outputs/x"
            )
        )
    )
    written = {
        key: store.client().get_object(Bucket="outputs", Key=key)["Body"].read() for key in keys(store, "x/")
    }
    assert not any(store.credentials.secret_key.encode() in body for body in written.values())
    (commit,) = (body for key, body in written.items() if key.startswith("x/commits/"))
    assert json.loads(commit)["prompt"] == "a cat"
