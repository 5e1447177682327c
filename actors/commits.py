"""The commits of an output: one JSON object per finished record. A record is done exactly when it is here."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from actors.storage import ObjectNotFound, Storage, join
from schemas.record import RECORD_SCHEMA
from schemas.run import InfrastructureError

_READERS = 16
_COMMIT_NAME = re.compile(r"/[0-9a-f]{32}\.json$")  # whatever else lies there is not ours
_MAX_COMMIT_BYTES = 4 * 2**20


class CommitStore:
    """Reads and writes `commits/<2 hex>/<record_id>.json` below an output."""

    def __init__(self, storage: Storage, output: str):
        self._storage = storage
        self._root = join(output, "commits")

    def uri(self, record_id: str) -> str:
        return join(self._root, record_id[:2], f"{record_id}.json")

    def write(self, record: dict[str, Any]) -> None:
        """Commits a complete record; writing the same record again changes nothing.

        Raises:
            ValueError: the record lacks or invents a field.
            StorageUnavailable: the output's store does not answer.
        """
        if mismatch := set(RECORD_SCHEMA.names) ^ record.keys():
            raise ValueError(
                f"record {record.get('row_id')!r}: fields missing or unknown: {sorted(mismatch)}"
            )
        body = {**record, "finished_at": record["finished_at"].isoformat()}
        self._storage.write_bytes(
            self.uri(record["record_id"]), json.dumps(body, ensure_ascii=False).encode()
        )

    def read(self, record_id: str) -> dict[str, Any] | None:
        """The committed record, or None."""
        try:
            return self._load(self.uri(record_id))
        except ObjectNotFound:
            return None

    def read_many(self, record_ids: list[str]) -> Iterator[dict[str, Any] | None]:
        """The committed records in the order asked for, None for each that is not committed."""
        with ThreadPoolExecutor(_READERS) as readers:
            yield from readers.map(self.read, record_ids)

    def all(self) -> Iterator[dict[str, Any]]:
        """Every committed record, in no particular order."""
        with ThreadPoolExecutor(_READERS) as readers:
            yield from readers.map(
                self._load,
                [stat.uri for stat in self._storage.list(self._root) if _COMMIT_NAME.search(stat.uri)],
            )

    def _load(self, uri: str) -> dict[str, Any]:
        body = self._storage.read_bytes(uri, max_bytes=_MAX_COMMIT_BYTES)
        try:
            record = json.loads(body)
            record["finished_at"] = datetime.fromisoformat(record["finished_at"])
        except (ValueError, KeyError, TypeError) as error:
            raise InfrastructureError(
                f"{uri} is damaged ({error}); delete it to have its row made again"
            ) from error
        return record
