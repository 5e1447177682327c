"""A night: the config of the job that renders every manifest below a prefix, and the report that it leaves."""

from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, model_validator

from schemas.run import RenderRun


class NightRun(RenderRun):
    """Everything `jobs.nightly` needs to know: how each manifest is rendered, and what follows."""

    help_sections: ClassVar[dict[str, str]] = {**RenderRun.help_sections, "evaluate": "what follows"}
    help_metavars: ClassVar[dict[str, str]] = {
        **RenderRun.help_metavars,
        "webhook": "URL_OR_FILE",
        "clip": "DIR",
    }

    manifest: str = Field(description="folder or s3:// prefix; every .parquet file below it is a manifest")
    output: str = Field(
        description="manifest a/b.parquet is rendered to a/b below this folder or s3:// prefix"
    )
    evaluate: bool = Field(False, description="evaluate what was rendered, as jobs.evaluate --finished does")
    clip: str | None = Field(None, description="CLIP of the evaluation (default: the towers of the model)")
    webhook: str | None = Field(
        None,
        description="where the report is posted: an https URL, or a file that holds it, since it may be secret",
    )
    webhook_http_hosts: tuple[str, ...] = Field((), description="hosts whose webhook may be plain http")

    @model_validator(mode="after")
    def _webhook_is_safe(self) -> "NightRun":
        if self.webhook and "://" in self.webhook:
            check_webhook(self.webhook, self.webhook_http_hosts)
        return self

    def render_run(self, manifest: str, output: str) -> RenderRun:
        """The render of one manifest."""
        shared = self.model_dump(include=set(RenderRun.model_fields))
        return RenderRun.model_validate(shared | {"manifest": manifest, "output": output})


def check_webhook(url: str, http_hosts: tuple[str, ...]) -> None:
    """Refuses a URL that would carry the report in the clear.

    Raises:
        ValueError: it is neither https nor http to a host that is allowed.
    """
    parts = urlsplit(url)
    if not parts.hostname or not (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in http_hosts)
    ):
        raise ValueError(
            f"webhook: {parts.scheme}://{parts.hostname or ''} must be https, or http to one of --webhook-http-hosts"
        )


class NightOutput(BaseModel):
    """What became of one manifest."""

    manifest: str
    output: str
    status: Literal["done", "failed_rows", "unchanged", "refused", "infrastructure", "stopped", "not_begun"]
    error: str | None = None
    records: int = 0
    statuses: dict[str, int] = {}  # status -> records
    error_classes: dict[str, int] = {}
    rendered: int = 0  # videos of this night
    spent_usd: float | None = None
    mean_scores: dict[str, float] = {}
    reconciled: bool | None = None  # manifest, commits, MP4s and records agree; None: it did not come to that
    report: str | None = None  # URI of the page


class NightReport(BaseModel):
    """`nightly/latest.json` below the output, and the body of the webhook's POST."""

    schema_version: Literal[1] = 1
    run_id: str
    started_at: str  # ISO 8601, UTC
    finished_at: str
    exit_code: int
    rendered: int
    spent_usd: float | None
    outputs: list[NightOutput]
    webhook: str | None = None  # "sent" or why not; null in what is posted, and where there is none
