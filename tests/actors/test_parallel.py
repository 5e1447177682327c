"""Many requests at once: in order, bounded, and with their errors."""

import threading

import pytest

from actors.parallel import list_by_prefix, parallel_map
from actors.storage import ObjectStat, Storage


def test_results_come_in_the_order_of_the_items():
    assert list(parallel_map(lambda number: number * 2, range(500), threads=3)) == list(range(0, 1000, 2))


def test_of_endless_items_few_are_begun():
    begun = []

    def items():
        while True:
            begun.append(len(begun))
            yield begun[-1]

    results = parallel_map(lambda number: number, items(), threads=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(begun) < 20
    results.close()


def test_items_are_worked_on_together():
    together = threading.Barrier(4, timeout=20)
    assert len(list(parallel_map(lambda _: together.wait(), range(4), threads=4))) == 4


def test_an_error_is_raised_in_its_turn():
    results = parallel_map(lambda number: 1 / number, [1, 0, 1], threads=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


class PagedStore:
    """Stands for S3: lists what lies below a folder, and counts how often it is asked."""

    def __init__(self, files: int):
        self.uris = [f"s3://b/root/{number % 256:02x}/{number:032x}.json" for number in range(files)]
        self.asked = []

    def list(self, uri):
        self.asked.append(uri)
        return (ObjectStat(name, 1, "v") for name in self.uris if name.startswith(f"{uri}/"))


@pytest.mark.parametrize(("files", "requests"), [(0, 1), (3, 1), (999, 1), (1_200, 257)])
def test_a_folder_of_prefixes_is_listed_whole_and_a_small_one_at_once(files, requests):
    store = PagedStore(files)
    found = [stat.uri for stat in list_by_prefix(store, "s3://b/root")]
    assert sorted(found) == sorted(store.uris)
    assert len(store.asked) == requests


def test_a_local_folder_is_listed_whole(tmp_path):
    for prefix in ("00", "ff"):
        (tmp_path / prefix).mkdir()
        (tmp_path / prefix / "a.json").touch()
    found = [stat.uri for stat in list_by_prefix(Storage(), str(tmp_path))]
    assert sorted(found) == [f"{tmp_path}/00/a.json", f"{tmp_path}/ff/a.json"]
