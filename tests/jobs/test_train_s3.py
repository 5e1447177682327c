"""Both stages from checkpoint to checkpoint on object storage, and a video from the result."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.demo_world.export import Export, export
from examples.s3_server import S3Server
from schemas.manifest import manifest_schema

pytestmark = pytest.mark.slow

COMMON = ["--warmup-steps=3", "--image-batch=4", "--learning-rate=5e-3", "--ema-decay=0.9", "--log-every=5"]
COMMON += [
    "--validation-rows=6",
    "--validate-every=10",
    "--samples=2",
    "--sample-steps=2",
    "--checkpoint-every=10",
]


@pytest.fixture
def store(
    s3_env: S3Server, training_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> S3Server:
    """Model, pictures and clips in S3."""
    monkeypatch.setenv("STYLECRAFTER_CACHE", str(tmp_path / "cache"))
    client = s3_env.client()
    for path in training_model.rglob("*"):
        if path.is_file():
            key = f"train/model/{path.relative_to(training_model)}"
            client.put_object(Bucket="styles", Key=key, Body=path.read_bytes())
    world: dict[str, Any] = {"size": 32, "frames": 4, "styles": 4}
    export(Export(output="s3://styles/train/pictures", clips=0, stills=12, **world))
    export(Export(output="s3://styles/train/clips", clips=6, stills=0, look="neutral", **world))
    return s3_env


def run(job: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", job, *flags], capture_output=True, text=True, check=False, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    assert job == "jobs.render" or done.stderr == ""
    return done.stdout


def body(store: S3Server, key: str) -> bytes:
    found: bytes = store.client().get_object(Bucket="outputs", Key=key)["Body"].read()
    return found


def validation(store: S3Server, output: str, kind: str) -> list[float]:
    lines = [json.loads(line) for line in body(store, f"{output}/metrics.jsonl").splitlines()]
    return [line[f"val_loss_{kind}"] for line in lines if f"val_loss_{kind}" in line]


def kill_by_hand(store: S3Server, output: str, steps: tuple[int, int]) -> None:
    """As if the run had been killed between two checkpoints, before Ray had noted the first of them."""
    client, cut = store.client(), f"{output}/checkpoints/step-{steps[1]:08d}/state.pt"
    client.put_object(Bucket="outputs", Key=cut, Body=body(store, cut)[:-100])
    client.delete_object(Bucket="outputs", Key=f"{output}/model/fingerprint")
    client.delete_object(Bucket="outputs", Key=f"{output}/checkpoints/checkpoint_manager_snapshot.json")
    assert body(store, f"{output}/checkpoints/step-{steps[0]:08d}/state.pt")


def test_both_stages_and_a_video_from_bucket_to_bucket(
    store: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, clips = (
        "s3://styles/train/pictures/manifest.parquet",
        "s3://styles/train/clips/manifest.parquet",
    )
    style = [
        f"--data={pictures}",
        "--model=s3://styles/train/model",
        "--output=s3://outputs/style",
        "--steps=30",
        *COMMON,
    ]
    said = run("jobs.train_style", *style)
    assert "style stage, 30 steps on 12 images (4 styles)\n" in said
    assert said.endswith("model      s3://outputs/style/model\nmetrics    s3://outputs/style/metrics.jsonl\n")
    figures = {"style image": validation(store, "style", "image")}
    kill_by_hand(store, "style", steps=(20, 30))
    said = run("jobs.train_style", *style)
    assert "goes on from the checkpoint of step 20\n" in said
    assert validation(store, "style", "image") == pytest.approx(figures["style image"], rel=1e-5)
    run(
        "jobs.train_temporal",
        *(f"--data={clips}", f"--style-data={pictures}", "--model=s3://outputs/style/model"),
        *("--output=s3://outputs/temporal", "--steps=20", "--image-share=0.25", *COMMON),
    )
    figures |= {f"temporal {kind}": validation(store, "temporal", kind) for kind in ("image", "video")}
    with capsys.disabled():
        print(
            "\nvalidation losses", {name: [round(x, 4) for x in values] for name, values in figures.items()}
        )
    for values in figures.values():
        assert values[-1] < 0.98 * values[0]
        assert values == sorted(values, reverse=True)
    listing = store.client().list_objects_v2(Bucket="outputs", Prefix="temporal/")
    keys = {item["Key"] for item in listing["Contents"]}
    assert {"temporal/samples/step-00000020.png", "temporal/checkpoints/step-00000020/state.pt"} <= keys
    assert any(key.startswith("temporal/tensorboard/events.") for key in keys)
    assert not any(
        store.credentials.secret_key.encode() in body(store, key) for key in keys if key.endswith("json")
    )

    rows = [{"prompt": "a circle", "style_image_uri": ["s3://styles/train/pictures/stills/0000000.png"]}]
    manifest = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=manifest_schema(list(rows[0]))), manifest)
    store.client().put_object(Bucket="styles", Key="train/render.parquet", Body=manifest.getvalue())
    run(
        "jobs.render",
        *("--manifest=s3://styles/train/render.parquet", "--model=s3://outputs/temporal/model"),
        "--output=s3://outputs/rendered",
    )
    videos = store.client().list_objects_v2(Bucket="outputs", Prefix="rendered/videos/")["Contents"]
    assert [item["Size"] > 500 for item in videos] == [True]
