"""AssetLoader: fetched within limits, verified against the plan, decoded once, every failure one row's."""

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from actors.assets import AssetLoader, StyleImage
from actors.storage import ObjectStat, Storage, StorageUnavailable
from examples.s3_server import S3Server
from schemas.planned import AssetRef
from schemas.record import ErrorClass, RowError, Status
from schemas.run import FetchLimits
from tests.support.http_server import HttpServer, answer, dripping, endless


def _png(seed: int = 0, side: int = 16) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _ref(stat: ObjectStat) -> AssetRef:
    return AssetRef(uri=stat.uri, location=stat.uri, version=stat.version, size_bytes=stat.size_bytes)


class _CountingStorage(Storage):
    """Counts what is fetched."""

    fetches = 0

    def fetch(self, uri: str, max_bytes: int | None) -> tuple[bytes, ObjectStat]:
        self.fetches += 1
        return super().fetch(uri, max_bytes)


@pytest.fixture
def loaders() -> Iterator[Any]:
    made = []

    def make(storage: Storage | None = None, cache_bytes: int = 2**28, **limits: Any) -> AssetLoader:
        config = FetchLimits(**limits)
        made.append(AssetLoader(storage or Storage(config), config, cache_bytes))
        return made[-1]

    yield make
    for loader in made:
        loader.close()


def _failure(loader: AssetLoader, location: str) -> RowError:
    """The same error from the plan's probe and, the plan passed over, from the actor's fetch."""
    with pytest.raises(RowError) as probed:
        loader.probe(location)
    with pytest.raises(RowError) as fetched:
        loader.style_image(AssetRef(uri=location, location=location, version="?", size_bytes=0))
    assert probed.value.error_class is fetched.value.error_class
    return fetched.value


def _check(loader: AssetLoader, location: str, data: bytes) -> StyleImage:
    image = loader.style_image(_ref(loader.probe(location)))
    assert np.array_equal(image.pixels, np.asarray(Image.open(io.BytesIO(data))))
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    return image


def test_from_every_kind_of_store(
    loaders: Any, tmp_path: Path, s3_env: S3Server, http_server: HttpServer
) -> None:
    (tmp_path / "x.png").write_bytes(_png(1))
    image = _check(loaders(), str(tmp_path / "x.png"), _png(1))
    assert not image.pixels.flags.writeable
    uri = f"s3://styles/{uuid4().hex}.png"
    Storage().write_bytes(uri, _png(2))
    _check(loaders(), uri, _png(2))
    url = http_server.on("/x.png", answer(200, _png(3), ETag='"v1"'))
    _check(loaders(input_roots=(http_server.url,)), url, _png(3))


def test_a_changed_asset_names_both_versions(loaders: Any, tmp_path: Path) -> None:
    path, loader = tmp_path / "x.png", loaders()
    path.write_bytes(_png(1))
    ref = _ref(loader.probe(str(path)))
    path.write_bytes(_png(2))
    with pytest.raises(RowError) as refused:
        loader.style_image(ref)
    assert refused.value.error_class is ErrorClass.ASSET_CHANGED
    assert refused.value.status is Status.FAILED
    for data in (_png(1), _png(2)):
        assert hashlib.sha256(data).hexdigest() in refused.value.message


def test_cached_by_location_and_version(loaders: Any, tmp_path: Path) -> None:
    storage = _CountingStorage()
    path, loader = tmp_path / "x.png", loaders(storage)
    path.write_bytes(_png(1))
    first = _check(loader, str(path), _png(1))
    assert loader.style_image(_ref(loader.probe(str(path)))) is first
    assert storage.fetches == 1
    path.write_bytes(_png(2))
    _check(loader, str(path), _png(2))
    assert storage.fetches == 2


def test_the_cache_is_bounded(loaders: Any, tmp_path: Path) -> None:
    storage = _CountingStorage()
    loader = loaders(storage, cache_bytes=2 * 16 * 16 * 3)
    for seed in (0, 1, 2, 2, 1, 0):
        path = tmp_path / f"{seed}.png"
        path.write_bytes(_png(seed))
        _check(loader, str(path), _png(seed))
    assert storage.fetches == 4  # 0 had to go when 2 came


def test_wanted_by_many_at_once_fetched_once(loaders: Any, tmp_path: Path) -> None:
    storage = _CountingStorage()
    path, loader = tmp_path / "x.png", loaders(storage)
    path.write_bytes(_png(0, side=500))
    ref = _ref(loader.probe(str(path)))
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda _: loader.style_image(ref), range(16)))
    assert all(image is images[0] for image in images)
    assert storage.fetches == 1


def test_a_failure_is_not_cached(loaders: Any, tmp_path: Path) -> None:
    loader, path = loaders(), tmp_path / "late.png"
    with pytest.raises(RowError):
        loader.probe(str(path))
    path.write_bytes(_png())
    _check(loader, str(path), _png())


@pytest.mark.parametrize(
    ("name", "error_class", "status"),
    [
        ("absent.png", ErrorClass.ASSET_NOT_FOUND, Status.FAILED),
        ("big.png", ErrorClass.ASSET_TOO_LARGE, Status.FAILED),
        ("/etc/passwd", ErrorClass.URI_FORBIDDEN, Status.INVALID),
        ("http://127.0.0.1:1/x.png", ErrorClass.URI_FORBIDDEN, Status.INVALID),
        ("gs://bucket/x.png", ErrorClass.URI_FORBIDDEN, Status.INVALID),
    ],
)
def test_local_failures(
    loaders: Any, tmp_path: Path, name: str, error_class: ErrorClass, status: Status
) -> None:
    (tmp_path / "big.png").write_bytes(bytes(2000))
    location = name if "/" in name else str(tmp_path / name)
    error = _failure(loaders(input_roots=(str(tmp_path),), max_image_bytes=1000), location)
    assert (error.error_class, error.status) == (error_class, status)
    assert location in error.message


@pytest.mark.parametrize(
    ("script", "error_class"),
    [
        (answer(404), ErrorClass.ASSET_NOT_FOUND),
        (answer(403), ErrorClass.ASSET_FORBIDDEN),
        (answer(500), ErrorClass.ASSET_UNAVAILABLE),
        (endless(), ErrorClass.ASSET_TOO_LARGE),
    ],
)
def test_http_failures(
    loaders: Any, http_server: HttpServer, short_pauses: None, script: Any, error_class: ErrorClass
) -> None:
    url = http_server.on("/x.png", script)
    assert _failure(loaders(input_roots=(http_server.url,)), url).error_class is error_class


def test_a_slow_server_is_its_row_s_failure(loaders: Any, http_server: HttpServer) -> None:
    url = http_server.on("/x.png", dripping())
    loader = loaders(input_roots=(http_server.url,), fetch_timeout_s=0.5)
    with pytest.raises(RowError) as refused:
        loader.style_image(AssetRef(uri=url, location=url, version="?", size_bytes=0))
    assert refused.value.error_class is ErrorClass.ASSET_TIMEOUT


def test_an_object_store_that_is_down_is_no_row_s_failure(
    loaders: Any, s3_env: S3Server, short_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    loader, uri = loaders(), "s3://styles/x.png"
    with pytest.raises(StorageUnavailable):
        loader.probe(uri)
    with pytest.raises(StorageUnavailable):
        loader.style_image(AssetRef(uri=uri, location=uri, version="?", size_bytes=0))


@pytest.mark.parametrize("data", [b"", b"<svg/>", b"<html></html>", _png()[:100]])
def test_undecodable_assets_name_their_uri(loaders: Any, tmp_path: Path, data: bytes) -> None:
    path, loader = tmp_path / "fake.png", loaders()
    path.write_bytes(data)
    with pytest.raises(RowError, match=r"fake\.png: ") as refused:
        loader.style_image(_ref(loader.probe(str(path))))
    assert refused.value.error_class is ErrorClass.ASSET_UNDECODABLE


def test_secrets_of_a_presigned_url_stay_out_of_the_record(loaders: Any, http_server: HttpServer) -> None:
    url = http_server.on("/x.png", answer(200, b"<svg/>", ETag='"v"')) + "?X-Amz-Signature=abcdef0123"
    loader = loaders(input_roots=(http_server.url,))
    with pytest.raises(RowError) as refused:
        loader.style_image(AssetRef(uri=url, location=url, version="v", size_bytes=6))
    assert "abcdef0123" not in refused.value.message
    http_server.on("/x.png", answer(404))
    assert "abcdef0123" not in _failure(loader, url).message
