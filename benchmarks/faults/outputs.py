"""The objects below an output, read without the product's code: a folder, or a prefix in S3."""

from pathlib import Path
from typing import Any, Protocol


class Output(Protocol):
    """What the audit reads, and what a fault damages. Names are relative to the output."""

    uri: str

    def names(self, folder: str) -> list[str]: ...
    def read(self, name: str) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def delete(self, name: str) -> None: ...


class LocalOutput:
    """An output in a local folder."""

    def __init__(self, folder: Path):
        self.uri = str(folder)
        self._folder = folder

    def names(self, folder: str) -> list[str]:
        """Every file below a folder of the output, hidden ones too."""
        root = self._folder / folder
        return sorted(str(path.relative_to(self._folder)) for path in root.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def delete(self, name: str) -> None:
        (self._folder / name).unlink()


class S3Output:
    """An output in S3, read with a client that goes to the server directly, past the faults on the way."""

    def __init__(self, client: Any, bucket: str, prefix: str):
        self.uri = f"s3://{bucket}/{prefix}"
        self._client, self._bucket, self._prefix = client, bucket, prefix

    def names(self, folder: str) -> list[str]:
        """Every object below a folder of the output."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}/{folder}/"
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sorted(key.removeprefix(f"{self._prefix}/") for key in keys)

    def read(self, name: str) -> bytes:
        found = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")
        return bytes(found["Body"].read())

    def write(self, name: str, data: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=data)

    def delete(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")
