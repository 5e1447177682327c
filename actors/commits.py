"""The commits of an output: one JSON object per finished record. A record is done exactly when it is here."""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from actors.parallel import list_by_prefix, parallel_map
from actors.storage import ObjectNotFound, ObjectStat, Storage, join
from schemas.record import RECORD_SCHEMA, Status
from schemas.run import InfrastructureError

_NAME = re.compile(r"/([0-9a-f]{32})\.json$")  # whatever else lies there is not ours
_KEY = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_BYTES = 4 * 2**20
_NAMES = tuple(RECORD_SCHEMA.names)
_FIELDS = frozenset(_NAMES)
_STATUSES = frozenset(Status)
_REQUIRED = tuple(field.name for field in RECORD_SCHEMA if not field.nullable)


class DamagedCommit(InfrastructureError):  # noqa: N818 - named like the finding it becomes
    """A commit object that does not hold the record it is named after."""

    def __init__(self, uri: str, record_id: str, reason: str):
        super().__init__(f"{uri} is damaged ({reason}); jobs.reconcile --repair sets it aside")
        self.record_id = record_id
        self.reason = reason


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
        self._storage.write_bytes(self.uri(record["record_id"]), record_json(record))

    def read(self, record_id: str) -> dict[str, Any] | None:
        """The committed record, or None.

        Raises:
            DamagedCommit: the object is not that record.
        """
        uri = self.uri(record_id)
        try:
            body = self._storage.read_bytes(uri, max_bytes=_MAX_BYTES)
        except ObjectNotFound:
            return None
        try:
            record = record_from_json(body)
            if record["record_id"] != record_id:
                raise ValueError(f"it holds the record {record['record_id']!r}")
        except ValueError as error:
            raise DamagedCommit(uri, record_id, str(error)) from error
        return record

    def read_of_run(self, record_id: str, row_key: str, run_id: str) -> dict[str, Any] | None:
        """The committed record if this run made it of this very video; one that is damaged is none."""
        try:
            record = self.read(record_id)
        except DamagedCommit:
            return None
        return record if record and (record["row_key"], record["run_id"]) == (row_key, run_id) else None

    def read_many(self, record_ids: Iterable[str]) -> Iterator[dict[str, Any] | None]:
        """The committed records in the order asked for, None for each that is not committed.

        Raises:
            DamagedCommit: as `read`.
        """
        return parallel_map(self.read, record_ids)

    def try_many(self, record_ids: Iterable[str]) -> Iterator[dict[str, Any] | DamagedCommit | None]:
        """As `read_many`, with the error in the place of a damaged commit."""

        def attempt(record_id: str) -> dict[str, Any] | DamagedCommit | None:
            try:
                return self.read(record_id)
            except DamagedCommit as damage:
                return damage

        return parallel_map(attempt, record_ids)

    def listed(self) -> Iterator[tuple[str, ObjectStat]]:
        """(record_id, what the store says of its commit) of all commits, without reading them, in no set order."""
        for stat in list_by_prefix(self._storage, self._root):
            if name := _NAME.search(stat.uri):
                yield name.group(1), stat

    def all(self) -> Iterator[dict[str, Any]]:
        """Every committed record, in no particular order."""
        records = self.read_many(record_id for record_id, _ in self.listed())
        return (record for record in records if record is not None)


def record_json(record: dict[str, Any]) -> bytes:
    """A complete record as the JSON of its commit.

    Raises:
        ValueError: the record lacks or invents a field.
    """
    if mismatch := _FIELDS ^ record.keys():
        raise ValueError(f"record {record.get('row_id')!r}: fields missing or unknown: {sorted(mismatch)}")
    return json.dumps(
        {**record, "finished_at": record["finished_at"].isoformat()}, ensure_ascii=False
    ).encode()


def record_from_json(body: bytes) -> dict[str, Any]:
    """The record that `record_json` wrote. A field that its writer's version did not know yet is null.

    Raises:
        ValueError: it is no such JSON; says why.
    """
    try:
        record = json.loads(body)
        record["finished_at"] = datetime.fromisoformat(record["finished_at"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not the JSON of a record: {type(error).__name__}: {error}") from error
    if unknown := record.keys() - _FIELDS:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    if missing := [name for name in _REQUIRED if record.get(name) is None]:
        raise ValueError(f"fields missing: {missing}")
    if record["status"] not in _STATUSES:
        raise ValueError(f"status = {record['status']!r}")
    for name in ("record_id", "row_key"):
        value = record.get(name)
        if value is not None and not (isinstance(value, str) and _KEY.fullmatch(value)):
            raise ValueError(f"{name} = {value!r}: must be 32 hex digits")
    if record.get("sha256") is not None and not _SHA256.fullmatch(str(record["sha256"])):
        raise ValueError(f"sha256 = {record['sha256']!r}: must be 64 hex digits")
    return dict.fromkeys(_NAMES) | record
