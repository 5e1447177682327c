"""Many small requests at once, without holding all of them or their answers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from actors.storage import ObjectStat, Storage, is_local, join

T = TypeVar("T")
R = TypeVar("R")
_THREADS = 16
_AHEAD = 4  # items begun per thread: enough to keep each busy, whatever the number of items
_FIRST_LOOK = 1_000  # what S3 lists in one request


def parallel_map(function: Callable[[T], R], items: Iterable[T], threads: int = _THREADS) -> Iterator[R]:
    """The results in the order of the items; at most a few per thread are begun before the first is taken.

    Raises whatever `function` raised, when that item's turn comes.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(threads) as workers:
        begun: deque[Future[R]] = deque()
        try:
            begun.extend(workers.submit(function, item) for item in islice(waiting, threads * _AHEAD))
            while begun:
                result = begun.popleft().result()
                begun.extend(workers.submit(function, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in begun:
                future.cancel()


def list_by_prefix(storage: Storage, root: str) -> Iterator[ObjectStat]:
    """Every object of a folder whose objects lie in subfolders named by two hex digits, in no set order.

    A store answers a list of a million objects page by page; the subfolders are listed at once. A small folder
    costs one request, and a disk is no faster for being asked by several.
    """
    if is_local(root):
        yield from storage.list(root)
        return
    first = list(islice(storage.list(root), _FIRST_LOOK))
    if len(first) < _FIRST_LOOK:
        yield from first
        return
    prefixes = [join(root, f"{number:02x}") for number in range(256)]
    for found in parallel_map(lambda prefix: list(storage.list(prefix)), prefixes, threads=_THREADS // 2):
        yield from found
