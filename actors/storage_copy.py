"""A folder of the object store as files on this node: made once, shared by all processes."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from actors.storage_errors import ObjectNotFound, ObjectStat, UriForbidden
from actors.storage_s3 import S3Store

_DOWNLOADS = 8


def default_cache_dir() -> Path:
    configured = os.environ.get("STYLECRAFTER_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "stylecrafter"


def copy_tree(store: S3Store, uri: str, cache_dir: Path) -> Path:
    """The local copy of what is below `uri` now; a changed, added or removed object makes another copy.

    One process downloads while the others wait; a copy appears under its name only when it is complete.

    Raises:
        StorageError: ObjectNotFound where there is nothing below `uri`, or what a download ran into.
    """
    stats = list(store.list(uri))
    if not stats:
        raise ObjectNotFound(f"{uri}: there is nothing below it", uri)
    name = hashlib.sha256(repr((uri.rstrip("/"), stats)).encode()).hexdigest()[:32]
    target = cache_dir / name
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _locked(cache_dir / f"{name}.lock"):
        if not target.is_dir():
            partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache_dir))
            try:
                _download_all(store, uri.rstrip("/") + "/", stats, partial)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return target


def _download_all(store: S3Store, prefix: str, stats: list[ObjectStat], folder: Path) -> None:
    def download(stat: ObjectStat) -> None:
        relative = stat.uri.removeprefix(prefix)
        if ".." in relative.split("/") or relative.startswith("/"):
            raise UriForbidden(f"{stat.uri}: its key is no safe file name", stat.uri)
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        store.download(stat, path)

    with ThreadPoolExecutor(_DOWNLOADS) as downloads:
        for _ in downloads.map(download, stats):
            pass


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one thread of one process of this node; the system releases it when that process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
