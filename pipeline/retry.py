"""A run that does nothing but try some committed failures again."""

import json

from pydantic import ValidationError

from actors.storage import ObjectNotFound, Storage, join
from pipeline.prepare import PreparedRun, prepare
from schemas.repair_run import RetryRun
from schemas.run import RenderRun, UsageError

_MAX_BYTES = 2**20


def prepare_retry(retry: RetryRun) -> PreparedRun:
    """Plans the chosen rows of an output's last run, with that run's config and the rows' own names and seeds.

    Raises:
        UsageError: no run has written to the output, or its config is of another version.
        ManifestError, InfrastructureError: as `prepare`.
    """

    def is_chosen(row_id: str, status: str, error_class: str | None) -> bool:
        return (
            status in retry.status
            and (not retry.error_class or error_class in retry.error_class)
            and (not retry.row_id or row_id in retry.row_id)
        )

    return prepare(_last_run(retry.output), only=is_chosen)


def _last_run(output: str) -> RenderRun:
    try:
        body = Storage().read_bytes(join(output, "run", "config.json"), _MAX_BYTES)
    except ObjectNotFound:
        raise UsageError(
            f"output = {output!r}: no run/config.json there; nothing was rendered to it"
        ) from None
    try:
        config = json.loads(body)
        known = {name: value for name, value in config.items() if name in RenderRun.model_fields}
        # Its own run id: records tell which run made them. The output may have been moved, and its deadline is past.
        return RenderRun.model_validate(known | {"run_id": None, "output": output, "stop_at": None})
    except (ValueError, AttributeError, ValidationError) as error:
        raise UsageError(
            f"output = {output!r}: its run/config.json is not the config of a run: {error}"
        ) from None
