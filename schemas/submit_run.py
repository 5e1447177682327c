"""The config of the job that hands other jobs to a Ray cluster."""

import re
from datetime import UTC, datetime
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


class SubmitRun(BaseModel):
    """Everything `jobs.submit` needs to know beside the command that it submits."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_sections: ClassVar[dict[str, str]] = {
        "address": "where and under which name",
        "working_dir": "what is sent",
        "wait": "what is done",
    }
    help_metavars: ClassVar[dict[str, str]] = {
        "address": "URL",
        "submission_id": "NAME",
        "working_dir": "DIR",
        "exclude": "PATTERN",
        "env": "NAME=VALUE",
    }

    address: str | None = Field(
        None,
        pattern=r"^https?://[^/]+/?$",
        description="the cluster's dashboard (default: RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, else "
        "http://127.0.0.1:8265)",
    )
    submission_id: str | None = Field(
        None,
        description="name of the job, at most 100 letters, digits and _.-; {date} stands for today in UTC. What runs "
        "or is done under this name is not submitted again (default: a random name)",
    )
    working_dir: str | None = Field(
        None, description="folder that is sent and that the job starts in (default: this project)"
    )
    exclude: tuple[str, ...] = Field(
        (), description="what is not sent besides .gitignore and .rayignore, in their syntax"
    )
    env: tuple[str, ...] = Field((), description="environment variables of the job; nothing secret")
    wait: bool = Field(True, description="follow the log and end with the job's exit code")
    status: bool = Field(False, description="submit nothing; say how the job is doing")
    stop: bool = Field(False, description="submit nothing; stop the job")

    @field_validator("submission_id")
    @classmethod
    def _dated(cls, value: str | None) -> str | None:
        if value is None:
            return None
        dated = value.replace("{date}", datetime.now(UTC).date().isoformat())
        if not _ID.fullmatch(dated):
            raise ValueError(
                "must be letters, digits and _.- (at most 100), beginning with a letter or digit"
            )
        return dated

    @field_validator("env")
    @classmethod
    def _assignments(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            if not _VARIABLE.fullmatch(item):
                raise ValueError(f"{item.split('=')[0]!r} must have the form NAME=VALUE")
        return value

    @model_validator(mode="after")
    def _one_thing(self) -> "SubmitRun":
        if self.status and self.stop:
            raise ValueError("--status and --stop exclude each other")
        if (self.status or self.stop) and self.submission_id is None:
            raise ValueError("--status and --stop need --submission-id")
        return self
