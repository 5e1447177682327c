"""Many requests at once: in order, bounded, and with their errors."""

import threading

import pytest

from actors.parallel import list_by_prefix, parallel_map
from actors.storage import Storage


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


@pytest.mark.parametrize("files", [0, 3, 1_200])
def test_a_folder_of_prefixes_is_listed_whole(tmp_path, files):
    names = {f"{number % 256:02x}/{number:032x}.json" for number in range(files)}
    for prefix in {name[:2] for name in names}:
        (tmp_path / "root" / prefix).mkdir(parents=True)
    for name in names:
        (tmp_path / "root" / name).touch()
    found = [stat.uri for stat in list_by_prefix(Storage(), str(tmp_path / "root"))]
    assert sorted(found) == sorted(str(tmp_path / "root" / name) for name in names)
