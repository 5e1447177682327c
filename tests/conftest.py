"""Fixtures shared by all tests: a real S3 server and the environment that leads to it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors import retries
from examples.s3_server import S3Server
from tests.support.http_server import HttpServer

_OTHER_S3_VARIABLES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
)


def pytest_configure() -> None:
    # Before anything imports torch: OpenMP threads that spin while they wait slow a busy machine down tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running server with the buckets `styles` and `outputs`; a test that stops it starts its own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        pid = server.pid
        yield server
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.fixture
def s3_env(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    """The server, with AWS_* variables that lead to it and nowhere else."""
    for name in _OTHER_S3_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return s3_server


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    """A local web server whose answers a test scripts, well or ill behaved."""
    with HttpServer() as server:
        yield server


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other quickly."""
    monkeypatch.setattr(retries, "_FIRST_DELAY_S", 0.01)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory whose videos take a fraction of a second."""
    from tests.support import models

    directory = tmp_path_factory.mktemp("model")
    models.write_tiny_model(directory)
    return directory


@pytest.fixture(scope="session")
def depth_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory as `tiny_model`, with a depth adapter."""
    from tests.support import models

    directory = tmp_path_factory.mktemp("depth-model")
    models.write_depth_model(directory)
    return directory


@pytest.fixture(scope="session")
def training_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of which a training step takes some hundredths of a second."""
    from tests.support import models

    directory = tmp_path_factory.mktemp("training-model")
    models.write_smallest_model(directory)
    return directory


@pytest.fixture(scope="session")
def demo_world(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The manifest of a small demo world: 12 stills and 6 clips of 4 styles."""
    from tests.support.training import write_demo_world

    return write_demo_world(tmp_path_factory.mktemp("demo-world"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Style pictures 0.png to 2.png, and broken.png, which is none."""
    from tests.support import models

    directory = tmp_path_factory.mktemp("pictures")
    models.write_pictures(directory)
    return directory
