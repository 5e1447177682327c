"""Every method of Storage, on files and on a real S3 server; names, joins and redaction of URIs."""

import hashlib
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors import storage_s3
from actors.storage import (
    AccessDenied,
    ObjectNotFound,
    Storage,
    StorageError,
    StorageUnavailable,
    TooLarge,
    UriForbidden,
    is_local,
    join,
    resolve,
    scheme_of,
)
from examples.s3_server import S3Server
from schemas.run import FetchLimits, InfrastructureError


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "root")
    request.getfixturevalue("s3_env")
    return f"s3://outputs/{uuid4().hex}"


def _copied(value: Any) -> Any:
    """As it arrives in another process."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


@pytest.fixture
def storage() -> Storage:
    return Storage()


def test_what_is_written_is_read(storage: Storage, root: str) -> None:
    uri = join(root, "deep", "er", "a b%20ü.bin")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"first")
    storage.write_bytes(uri, b"second")
    assert storage.exists(uri)
    assert storage.read_bytes(uri) == b"second"
    assert storage.fetch(uri, 6) == (b"second", storage.stat(uri))
    assert storage.stat(uri).size_bytes == 6


def test_empty_object(storage: Storage, root: str) -> None:
    storage.write_bytes(join(root, "empty"), b"")
    assert storage.read_bytes(join(root, "empty"), max_bytes=0) == b""


def test_version_follows_content(storage: Storage, root: str) -> None:
    uri, twin = join(root, "a"), join(root, "b")
    storage.write_bytes(uri, b"one")
    storage.write_bytes(twin, b"one")
    before = storage.stat(uri).version
    assert storage.stat(twin).version == before
    storage.write_bytes(uri, b"two")
    assert storage.stat(uri).version != before


def test_local_version_is_the_hash_of_the_content(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    assert storage.stat(str(tmp_path / "a")).version == hashlib.sha256(b"content").hexdigest()
    assert storage.stat((tmp_path / "a").as_uri()).version == hashlib.sha256(b"content").hexdigest()


def test_s3_version_is_the_etag_without_quotes(storage: Storage, s3_env: S3Server) -> None:
    uri = f"s3://outputs/{uuid4().hex}"
    storage.write_bytes(uri, b"content")
    assert storage.stat(uri).version == hashlib.md5(b"content").hexdigest()


def test_absent(storage: Storage, root: str) -> None:
    uri = join(root, "absent")
    for read in (storage.stat, storage.read_bytes, storage.expand, storage.local_copy):
        with pytest.raises(ObjectNotFound, match="absent"):
            read(uri)
    assert list(storage.list(uri)) == []
    storage.delete(uri)


def test_a_folder_is_no_object(storage: Storage, root: str) -> None:
    storage.write_bytes(join(root, "folder", "x"), b"1")
    assert not storage.exists(join(root, "folder"))
    with pytest.raises(ObjectNotFound):
        storage.read_bytes(join(root, "folder"))


def test_byte_limit(storage: Storage, root: str) -> None:
    uri = join(root, "big")
    storage.write_bytes(uri, bytes(1001))
    assert len(storage.read_bytes(uri, max_bytes=1001)) == 1001
    with pytest.raises(TooLarge, match="at most 1000"):
        storage.fetch(uri, 1000)
    with pytest.raises(TooLarge, match="at most 1000"):
        storage.stat(uri, max_bytes=1000)


def test_upload(storage: Storage, root: str, tmp_path: Path) -> None:
    source = tmp_path / "source.mp4"
    source.write_bytes(os.urandom(300_000))
    storage.upload(source, join(root, "videos", "v.mp4"))
    assert storage.read_bytes(join(root, "videos", "v.mp4")) == source.read_bytes()


def test_upload_in_parts(
    storage: Storage, s3_env: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_s3, "_SINGLE_PUT_BYTES", 10 * 2**20)
    source, uri = tmp_path / "source", f"s3://outputs/{uuid4().hex}"
    source.write_bytes(os.urandom(11 * 2**20))
    storage.upload(source, uri)
    assert storage.read_bytes(uri) == source.read_bytes()
    assert storage.stat(uri).version.endswith("-3")


def test_a_failed_local_write_leaves_the_old_object_and_nothing_else(
    storage: Storage, tmp_path: Path
) -> None:
    uri = str(tmp_path / "out" / "object")
    storage.write_bytes(uri, b"old")
    with pytest.raises(TypeError):
        storage.write_bytes(uri, "no bytes")  # type: ignore[arg-type]
    assert storage.read_bytes(uri) == b"old"
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["object"]


def test_list(storage: Storage, root: str) -> None:
    names = ["a/1", "a/2", "b/c/3", "bc", "z"]
    for name in names:
        storage.write_bytes(join(root, name), name.encode() * 10)
    listed = [(stat.uri, stat.size_bytes) for stat in storage.list(root)]
    assert sorted(listed) == [(join(root, name), 10 * len(name)) for name in names]
    assert [stat.uri for stat in storage.list(join(root, "b/"))] == [join(root, "b/c/3")]


def test_list_goes_page_by_page(storage: Storage, s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_s3, "_PAGE_KEYS", 3)
    uri = f"s3://outputs/{uuid4().hex}"
    for number in range(10):
        storage.write_bytes(join(uri, str(number)), b"x")
    assert [stat.uri for stat in storage.list(uri)] == [join(uri, str(number)) for number in range(10)]


def test_list_hides_unfinished_writes(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / ".0123456789abcdef.tmp").write_bytes(b"half")
    assert list(storage.list(str(tmp_path))) == []


def test_delete(storage: Storage, root: str) -> None:
    storage.write_bytes(join(root, "x"), b"1")
    storage.delete(join(root, "x"))
    assert not storage.exists(join(root, "x"))


def test_expand(storage: Storage, root: str) -> None:
    for name in ("m/b.parquet", "m/a.parquet", "m/deep/c.parquet", "m/note.txt", "m/_tmp/d.parquet"):
        storage.write_bytes(join(root, name), b"1")

    def below(*names: str) -> list[str]:
        return [join(root, name) for name in names]

    assert storage.expand(join(root, "m")) == below("m/a.parquet", "m/b.parquet", "m/deep/c.parquet")
    assert storage.expand(join(root, "m/a.parquet")) == below("m/a.parquet")
    assert storage.expand(join(root, "m/*.parquet")) == below("m/a.parquet", "m/b.parquet")
    assert storage.expand(join(root, "m/**/c.parquet")) == below("m/deep/c.parquet")
    with pytest.raises(ObjectNotFound, match="nothing matches"):
        storage.expand(join(root, "m/*.csv"))


def test_arrow_filesystem(storage: Storage, root: str) -> None:
    table, uri = pa.table({"x": [1, 2, 3]}), join(root, "t.parquet")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    storage.write_bytes(uri, sink.getvalue().to_pybytes())
    filesystem, path = _copied(storage.arrow_filesystem(uri))
    assert pq.read_table(path, filesystem=filesystem).equals(table)


def test_local_copy(storage: Storage, root: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    storage.write_bytes(join(root, "model", "unet", "w"), b"weights")
    storage.write_bytes(join(root, "model", "index.json"), b"{}")
    copy = storage.local_copy(join(root, "model"), cache)
    assert (copy / "unet" / "w").read_bytes() == b"weights"
    assert (copy / "index.json").read_bytes() == b"{}"
    assert storage.local_copy(join(root, "model"), cache) == copy
    storage.write_bytes(join(root, "model", "index.json"), b"[]")
    assert (storage.local_copy(join(root, "model"), cache) / "index.json").read_bytes() == b"[]"


def test_local_copy_by_many_at_once_downloads_once(
    s3_env: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, uri, downloads = Storage(), f"s3://outputs/{uuid4().hex}", []
    storage.write_bytes(join(uri, "w"), b"weights")
    original = storage_s3.S3Store.download
    monkeypatch.setattr(
        storage_s3.S3Store, "download", lambda *args: (downloads.append(args[1]), original(*args))[1]
    )
    with ThreadPoolExecutor(6) as pool:
        copies = set(pool.map(lambda _: storage.local_copy(uri, tmp_path / "cache"), range(6)))
    assert len(copies) == 1
    assert len(downloads) == 1


def test_a_pickled_storage_works_in_threads_and_in_a_forked_child(s3_env: S3Server) -> None:
    uri = f"s3://outputs/{uuid4().hex}"
    storage: Storage = _copied(Storage(FetchLimits(fetch_retries=1), patience_s=1))
    storage.write_bytes(uri, b"shared")
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: storage.read_bytes(uri), range(32))) == {b"shared"}
    assert threading.active_count() < 50
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_expect, args=(storage, uri, b"shared"))
    child.start()
    child.join(30)
    assert child.exitcode == 0


def _expect(storage: Storage, uri: str, data: bytes) -> None:
    os._exit(0 if storage.read_bytes(uri) == data else 1)


def test_local_refusals(storage: Storage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for uri in (str(tmp_path / "pipe"), "/dev/zero", "file://elsewhere/x", str(tmp_path / "a\0b")):
        with pytest.raises(UriForbidden):
            storage.read_bytes(uri, max_bytes=10)
    with pytest.raises(ObjectNotFound):
        storage.read_bytes(str(tmp_path / ("x" * 5000)))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ObjectNotFound):
        storage.stat(str(tmp_path / "file" / "below"))


def test_http_is_for_reading_only(storage: Storage, tmp_path: Path) -> None:
    for call in (
        lambda: storage.write_bytes("http://example.com/x", b""),
        lambda: storage.upload(tmp_path, "http://example.com/x"),
        lambda: storage.delete("https://example.com/x"),
        lambda: storage.local_copy("http://example.com/model"),
        lambda: storage.read_bytes("ftp://example.com/x"),
    ):
        with pytest.raises(UriForbidden, match="scheme"):
            call()


def test_errors_survive_the_way_between_processes() -> None:
    for kind in (ObjectNotFound, AccessDenied, StorageUnavailable):
        error = _copied(kind("a sentence", "s3://b/k"))
        assert (type(error), str(error), error.uri) == (kind, "a sentence", "s3://b/k")
    assert issubclass(StorageUnavailable, InfrastructureError)
    assert not issubclass(ObjectNotFound, InfrastructureError)
    assert issubclass(TooLarge, StorageError)


def test_scheme_of() -> None:
    for uri, scheme in {
        "/a/b": "file",
        "a:b/c": "file",
        "file:///a": "file",
        "FILE:/a": "file",
        "S3://b/k": "s3",
        "https://h/x": "https",
        "data:image/png;base64,AA": "data",
    }.items():
        assert scheme_of(uri) == scheme, uri
        assert is_local(uri) == (scheme == "file")


def test_join() -> None:
    assert join("s3://b/", "/a/", "b") == "s3://b/a/b"
    assert join("/", "a") == "/a"


def test_resolve() -> None:
    s3, local = "s3://b/m/rows.parquet", "/data/m/rows.parquet"
    assert resolve("x/y.png", s3) == "s3://b/m/x/y.png"
    assert resolve("../x.png", s3) == "s3://b/x.png"
    assert resolve("x.png", "s3://b/m/") == "s3://b/m/x.png"
    assert resolve("../../x.png", s3) == "s3://b/../x.png"  # refused later
    assert resolve("../x.png", local) == "/data/x.png"
    assert resolve("file:///a%20b/./c.png", s3) == "/a b/c.png"
    assert resolve("https://h/x.png", s3) == "https://h/x.png"
    assert resolve("x.png", "rows.parquet") == str(Path.cwd() / "x.png")
