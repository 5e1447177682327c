"""A manifest full of traps, rendered end to end: the good rows are, and each trap is a record that says why."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from actors.storage import Storage
from pipeline.prepare import prepare
from pipeline.render import render
from schemas.manifest import ManifestError
from schemas.record import ErrorClass, Status
from schemas.run import ExitCode, FetchLimits, InfrastructureError, RenderRun
from tests.support.http_server import HttpServer, answer, dripping, endless, redirect

ODD_IDS = ("a/b/c", "../../up", "..", "/etc/passwd", "~", "a\nb", "e\u0301", "\u202eabc", "{}%s$HOME", "-rf")


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> None:
    """Columns of plain text or of what the values are, as strangers write them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)


def picture(size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest's folder with pictures, and a file outside of it that no row may read."""
    folder = tmp_path / "manifest"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(picture())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "folder.png").mkdir()
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    noise = buffer.getvalue()
    files = {
        "good.png": picture(),
        "a jpeg.png": picture(kind="JPEG"),
        "bomb.png": picture((2000, 2000)),
        "big.png": picture() + bytes(400_000),
        "empty.png": b"",
        "truncated.png": noise[: len(noise) // 2],
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "html.png": b"<!DOCTYPE html><html>Not found</html>",
        "video.png": b"\0\0\0\x20ftypisom\0\0\2\0",
        "noise.png": bytes(range(256)),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def run_manifest(folder: Path, tmp_path: Path, tiny_model: Path) -> Any:
    """Renders all Parquet files of the folder; returns the summary and the records by row_id."""

    def run(roots: tuple[str, ...] = (), **limits: Any) -> tuple[Any, dict[str, dict[str, Any]]]:
        summary = render(
            prepare(
                RenderRun(
                    manifest=str(folder),
                    model=str(tiny_model),
                    output=str(tmp_path / "out"),
                    limits=FetchLimits(input_roots=(str(folder), *roots), **limits),
                )
            )
        )
        table = pq.read_table(tmp_path / "out" / "records")
        records = {record["row_id"]: record for record in table.to_pylist()}
        assert len(records) == table.num_rows == summary.records
        return summary, records

    return run


PICTURES = {
    "a jpeg.png": None,
    "bomb.png": (ErrorClass.ASSET_TOO_LARGE, "2000 x 2000 = 4000000 pixels; at most 1000000 are allowed"),
    "big.png": (ErrorClass.ASSET_TOO_LARGE, "at most 300000 are allowed"),
    "empty.png": (ErrorClass.ASSET_UNDECODABLE, "the file is empty"),
    "truncated.png": (ErrorClass.ASSET_UNDECODABLE, "the PNG is truncated"),
    "svg.png": (ErrorClass.ASSET_UNDECODABLE, "this is SVG text, not a picture"),
    "html.png": (ErrorClass.ASSET_UNDECODABLE, "this is an HTML page, not a picture"),
    "video.png": (ErrorClass.ASSET_UNDECODABLE, "this is a video"),
    "noise.png": (ErrorClass.ASSET_UNDECODABLE, "this is not a picture in a known format"),
    "folder.png": (ErrorClass.ASSET_NOT_FOUND, "is a folder"),
    "absent.png": (ErrorClass.ASSET_NOT_FOUND, "was not found"),
    "link.png": (ErrorClass.URI_FORBIDDEN, "outside the allowed input roots"),
    "../secret.png": (ErrorClass.URI_FORBIDDEN, "outside the allowed input roots"),
    "file:///etc/passwd": (ErrorClass.URI_FORBIDDEN, "outside the allowed input roots"),
    "file:%2F%2F%2Fetc%2Fpasswd": (ErrorClass.URI_FORBIDDEN, "outside the allowed input roots"),
    "http://169.254.169.254/latest/meta-data": (ErrorClass.URI_FORBIDDEN, "outside the allowed input roots"),
    "gopher://x/y": (ErrorClass.URI_FORBIDDEN, "scheme 'gopher' is not allowed"),
    "data:image/png;base64,AAAA": (ErrorClass.URI_FORBIDDEN, "scheme 'data' is not allowed"),
}


@pytest.mark.usefixtures("in_process")
def test_pictures_and_addresses(folder: Path, run_manifest: Any) -> None:
    rows = [{"row_id": uri, "prompt": "a cat", "style_image_uri": uri, "num_frames": 1} for uri in PICTURES]
    write_manifest(folder / "m.parquet", rows)
    summary, records = run_manifest(max_image_pixels=1_000_000, max_image_bytes=300_000)
    for uri, expected in PICTURES.items():
        record = records[uri]
        if expected is None:
            assert record["status"] == Status.OK
            continue
        error_class, sentence = expected
        assert record["error_class"] == error_class, record["error"]
        assert sentence in record["error"]
    assert summary.exit_code(0.0) == ExitCode.DONE_WITH_FAILED_ROWS


VALUES = {
    "a megabyte of prompt": ({"prompt": "x" * 2**20}, "at most 4096 characters"),
    "a control character": ({"prompt": "a\x1b[31mcat"}, "control character U+001B at position 1"),
    "a NUL": ({"prompt": "a\0cat"}, "control character U+0000"),
    "blank": ({"prompt": " \n"}, "must not be empty"),
    "NaN": ({"style_scale": float("nan")}, "style_scale = nan"),
    "infinity": ({"text_guidance_scale": float("inf")}, "text_guidance_scale = inf"),
    "too wide": ({"width": 10**9}, "width = 1000000000"),
    "no multiple": ({"width": 50}, "must be a multiple of"),
    "negative": ({"num_frames": -1}, "num_frames = -1"),
    "too many": ({"num_inference_steps": 10**6}, "num_inference_steps = 1000000"),
    "a null reference": ({"style_image_uri": ["good.png", None]}, "style_image_uri.1 = None"),
    "no reference": ({"style_image_uri": []}, "at least 1 item"),
    "a long URI": ({"style_image_uri": ["x" * 3000]}, "at most 2048 characters"),
    "bad mode": ({"mode": "gif"}, "'video' or 'image'"),
}  # fmt: skip


@pytest.mark.usefixtures("in_process")
def test_values_and_ids(tmp_path: Path, folder: Path, run_manifest: Any) -> None:
    good = {"prompt": "a cat", "style_image_uri": ["good.png"], "num_frames": 1}
    rows = [{**good, "row_id": row_id} for row_id in ODD_IDS]
    rows += [{**good, "row_id": row_id, **values} for row_id, (values, _) in VALUES.items()]
    rows += [
        {**good, "row_id": "x" * 10_240},
        {**good, "row_id": "twice"},
        {**good, "row_id": "twice", "prompt": "b"},
    ]
    write_manifest(folder / "m.parquet", rows)
    before = {path for path in tmp_path.rglob("*") if tmp_path / "out" not in path.parents}
    summary, records = run_manifest()
    for row_id, (_, sentence) in VALUES.items():
        assert records[row_id]["error_class"] == ErrorClass.INVALID_ROW
        assert sentence in records[row_id]["error"]
        assert len(records[row_id]["error"]) < 500
    oks = {row_id for row_id, record in records.items() if record["status"] == Status.OK}
    assert oks == {*ODD_IDS, "twice"} - {"e\u0301"} | {"\u00e9"}
    assert records["twice~2"]["error_class"] == ErrorClass.DUPLICATE_ROW_ID
    [long_id] = [record for row_id, record in records.items() if row_id.startswith("x-")]
    assert "row_id" in long_id["error"]
    assert "at most 256 characters" in long_id["error"]
    after = {path for path in tmp_path.rglob("*") if tmp_path / "out" not in path.parents}
    assert after == before | {tmp_path / "out"}  # whatever a row is called, it writes below the output only
    again, _ = run_manifest()
    assert (again.rendered, again.statuses) == (0, summary.statuses)


@pytest.mark.usefixtures("in_process")
def test_damaged_manifest_files_cost_their_own_rows(folder: Path, run_manifest: Any) -> None:
    good = {"prompt": "a cat", "style_image_uri": ["good.png"], "num_frames": 1}
    for name in ("a", "b", "c"):
        write_manifest(folder / f"{name}.parquet", [{**good, "row_id": f"{name}{row}"} for row in range(2)])
    whole = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(whole[:-20])
    (folder / "d.parquet").write_bytes(b"")
    summary, records = run_manifest()
    assert summary.statuses == {"ok": 4, "invalid": 2}
    assert summary.error_classes == {ErrorClass.MANIFEST_UNREADABLE: 2}
    assert summary.exit_code(0.0) == ExitCode.DONE_WITH_FAILED_ROWS
    broken = [record for record in records.values() if record["status"] == Status.INVALID]
    for record, name in zip(broken, ("b.parquet", "d.parquet"), strict=True):
        assert str(folder / name) in record["error"]
        assert "not a readable Parquet file" in record["error"]
    assert run_manifest()[0].statuses == summary.statuses
    (folder / "b.parquet").write_bytes(whole)
    (folder / "d.parquet").unlink()
    mended, _ = run_manifest()
    assert (mended.statuses, mended.exit_code(0.0)) == ({"ok": 6}, ExitCode.DONE)
    for name in ("a", "b", "c"):
        (folder / f"{name}.parquet").write_bytes(b"damaged")
    with pytest.raises(ManifestError, match="and 2 more files, none of which can be used"):
        run_manifest()


@pytest.mark.usefixtures("in_process")
def test_strange_web_servers(folder: Path, run_manifest: Any, http_server: HttpServer) -> None:
    good = answer(200, picture(), ETag='"v"')
    urls = {
        http_server.on("/good.png", good): None,
        http_server.on("/moved.png", redirect("/good.png")): None,
        http_server.on("/slow.png", dripping()): ErrorClass.ASSET_TIMEOUT,
        http_server.on("/endless.png", endless()): ErrorClass.ASSET_TOO_LARGE,
        http_server.on("/inside.png", redirect("http://169.254.169.254/x")): ErrorClass.URI_FORBIDDEN,
        http_server.on("/file.png", redirect("file:///etc/passwd")): ErrorClass.URI_FORBIDDEN,
        http_server.on(
            "/short.png", answer(200, picture(), Content_Length="9")
        ): ErrorClass.ASSET_UNDECODABLE,
        http_server.on("/packed.png", answer(200, b"\x1f\x8b\x08", ETag='"v"')): ErrorClass.ASSET_UNDECODABLE,
        http_server.on("/gone.png", answer(404)): ErrorClass.ASSET_NOT_FOUND,
        http_server.on("/closed.png", answer(403)): ErrorClass.ASSET_FORBIDDEN,
    }
    rows = [{"row_id": url, "prompt": "a cat", "style_image_uri": url, "num_frames": 1} for url in urls]
    write_manifest(folder / "m.parquet", rows)
    _, records = run_manifest((http_server.url,), fetch_timeout_s=2, fetch_retries=0)
    assert {url: record["error_class"] for url, record in records.items()} == urls
    assert all(record["error"] for record in records.values() if record["status"] != Status.OK)


def test_an_endpoint_that_does_not_answer_ends_the_plan_at_once(
    s3_env: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, short_pauses: None
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    run = RenderRun(manifest="s3://b/m.parquet", model=str(tmp_path), output=str(tmp_path / "out"))
    assert run.storage_patience_s > 60
    with pytest.raises(InfrastructureError, match="cannot be reached; check AWS_ENDPOINT_URL"):
        prepare(run)
    assert not Storage().exists(str(tmp_path / "out"))
