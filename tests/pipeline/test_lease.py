"""One run at a time writes to an output."""

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from actors.storage import Storage
from pipeline import lease as module
from pipeline.lease import Lease, LeaseLost, check_free
from schemas.run import FetchLimits, UsageError
from tests.support import faulty_proxy
from tests.support.faulty_proxy import FaultyProxy


@pytest.fixture(params=["file", "s3"])
def output(request, tmp_path):
    if request.param == "file":
        return str(tmp_path / "out")
    request.getfixturevalue("s3_env")
    return f"s3://outputs/{tmp_path.name}"


@pytest.fixture
def storage():
    return Storage()


def held(storage, output, **changes):
    """A lease of another process, as it would have written it."""
    now = datetime.now(UTC).isoformat()
    holder = {"token": "t", "run_id": "other", "host": "far", "machine": "far", "pid": 7, "since": now}
    body = json.dumps({**holder, "heartbeat_at": now, **changes}).encode()
    storage.write_bytes(f"{output}/run/lease.json", body)


def seconds_ago(seconds):
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_a_lease_is_there_while_it_is_held_and_gone_afterwards(storage, output):
    with pytest.raises(ZeroDivisionError), Lease(storage, output, "mine"):
        assert json.loads(storage.read_bytes(f"{output}/run/lease.json"))["run_id"] == "mine"
        raise ZeroDivisionError
    assert not storage.exists(f"{output}/run/lease.json")


def test_another_runs_output_is_refused_by_name(storage, output):
    held(storage, output)
    for attempt in (lambda: Lease(storage, output, "mine").__enter__(), lambda: check_free(storage, output)):
        with pytest.raises(UsageError, match="run other on host far, pid 7"):
            attempt()
    assert storage.exists(f"{output}/run/lease.json")


def test_two_leases_in_one_process_exclude_each_other_too(storage, output):
    with Lease(storage, output, "first"):
        check_free(storage, output)  # to look at its own output is no crime
        with pytest.raises(UsageError, match="run first"), Lease(storage, output, "second"):
            pass
    with Lease(storage, output, "second"):
        pass


@pytest.mark.parametrize("holder", [{"heartbeat_at": seconds_ago(200)}, {"heartbeat_at": "?"}])
def test_a_lease_without_a_heartbeat_is_taken_over(storage, tmp_path, holder):
    output = str(tmp_path)
    held(storage, output, **holder)
    with Lease(storage, output, "mine"):
        assert json.loads(storage.read_bytes(f"{output}/run/lease.json"))["run_id"] == "mine"


def test_a_lease_that_is_no_json_is_taken_over(storage, tmp_path):
    storage.write_bytes(f"{tmp_path}/run/lease.json", b"{")
    with Lease(storage, str(tmp_path), "mine"):
        pass


def test_the_lease_of_a_killed_process_of_this_machine_is_free_at_once(storage, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = module._start_of(process.pid)
    held(storage, str(tmp_path), machine=module._machine(), pid=process.pid, process_start=start)
    with pytest.raises(UsageError):
        check_free(storage, str(tmp_path))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and still a zombie
    check_free(storage, str(tmp_path))
    process.communicate()
    check_free(storage, str(tmp_path))


def test_a_pid_that_another_process_got_since_does_not_hold_the_output(storage, tmp_path):
    held(storage, str(tmp_path), machine=module._machine(), pid=os.getpid(), process_start="1")
    check_free(storage, str(tmp_path))


def test_a_run_that_lost_its_lease_ends_while_it_waits(storage, tmp_path):
    output = str(tmp_path)
    with (
        pytest.raises(LeaseLost, match="taken over by run other on host far"),
        Lease(storage, output, "mine", beat_s=0.01),
    ):
        for _ in range(300):  # a beat that has looked already writes over what is put there now
            held(storage, output)
            threading.Event().wait(0.1)
    assert json.loads(storage.read_bytes(f"{output}/run/lease.json"))["run_id"] == "other"


def test_a_heartbeat_renews_the_lease(storage, tmp_path, monkeypatch):
    uri = f"{tmp_path}/run/lease.json"
    beats = set()
    with Lease(storage, str(tmp_path), "mine", beat_s=0.01):
        beaten = threading.Event()
        write = Storage.write_bytes

        def seen(beating, target, data):
            write(beating, target, data)
            beats.add(target)
            beaten.set()

        monkeypatch.setattr(Storage, "write_bytes", seen)
        assert beaten.wait(10)
    assert beats == {uri}
    assert not storage.exists(uri)


@pytest.mark.usefixtures("short_pauses")
def test_an_outage_at_the_start_is_waited_for_and_one_at_the_end_is_not(s3_env, monkeypatch):
    with FaultyProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        patient = Storage(FetchLimits(fetch_retries=0), patience_s=600)
        proxy.first(5, faulty_proxy.status(503), path="lease.json")
        with Lease(patient, "s3://outputs/outage", "mine"):
            assert json.loads(patient.read_bytes("s3://outputs/outage/run/lease.json"))["run_id"] == "mine"
            proxy.faults = lambda method, path: faulty_proxy.drop


@pytest.mark.usefixtures("short_pauses")
def test_a_lease_that_was_taken_without_an_answer_is_its_own(s3_env, monkeypatch):
    with FaultyProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.first(1, faulty_proxy.lose_answer, "PUT", "lease.json")
        with Lease(Storage(), "s3://outputs/unanswered", "mine"):
            pass
        assert not Storage().exists("s3://outputs/unanswered/run/lease.json")


def test_create_writes_only_where_nothing_is(storage, output):
    uri = f"{output}/object"
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
