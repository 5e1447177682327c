"""`jobs.manifest` from and to a real S3 server, and what it says when it cannot reach one."""

import io
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from examples.s3_server import Credentials, S3Server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(s3_server: S3Server) -> S3Server:
    """The server with prompts and style pictures on it."""
    client = s3_server.client()
    client.put_object(Bucket="styles", Key="jobs-manifest/prompts.txt", Body=b"A wolf.\nA river.\n")
    for name in ("ink.png", "set/1.png", "set/2.png"):
        client.put_object(Bucket="styles", Key=f"jobs-manifest/styles/{name}", Body=b"not decoded here")
    return s3_server


def run_job(environment: Mapping[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    inherited |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return subprocess.run(
        [sys.executable, "-m", "jobs.manifest", *argv],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


FROM_S3 = (
    "--prompts",
    "s3://styles/jobs-manifest/prompts.txt",
    "--styles",
    "s3://styles/jobs-manifest/styles",
)


def test_a_manifest_is_made_from_s3_to_s3(server: S3Server) -> None:
    done = run_job(server.environment(), *FROM_S3, "--output", "s3://outputs/jobs-manifest/m.parquet")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout
        == "4 rows (2 distinct prompts, 2 distinct styles) written to s3://outputs/jobs-manifest/m.parquet\n"
    )
    body = server.client().get_object(Bucket="outputs", Key="jobs-manifest/m.parquet")["Body"].read()
    table = pq.read_table(io.BytesIO(body))
    assert table["style_image_uri"].to_pylist()[:2] == [
        ["s3://styles/jobs-manifest/styles/ink.png"],
        ["s3://styles/jobs-manifest/styles/set/1.png", "s3://styles/jobs-manifest/styles/set/2.png"],
    ]


def test_a_missing_object_is_a_wrong_usage(server: S3Server) -> None:
    done = run_job(
        server.environment(), "--from", "s3://styles/none.csv", "--output", "s3://outputs/m.parquet"
    )
    assert (done.returncode, done.stderr) == (2, "error: s3://styles/none.csv: not found\n")


def test_wrong_credentials_are_an_infrastructure_error_in_one_line(server: S3Server) -> None:
    wrong = Credentials(server.credentials.access_key, "not-the-secret-of-this-server-000000000")
    done = run_job(server.environment(wrong), *FROM_S3, "--output", "s3://outputs/b.parquet")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("infrastructure error: ")
    assert wrong.secret_key not in done.stderr


def test_an_unreachable_endpoint_is_an_infrastructure_error_in_one_line(
    server: S3Server, tmp_path: Path
) -> None:
    with socket.socket() as held:  # bound but not listening: connections to it are refused
        held.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        config = tmp_path / "run.yaml"
        config.write_text("output: s3://outputs/c.parquet\n")
        done = run_job(
            server.environment() | {"AWS_ENDPOINT_URL": endpoint}, "--config", str(config), *FROM_S3
        )
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("infrastructure error: ")
