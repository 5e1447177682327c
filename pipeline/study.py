"""A blind preference study: two or more runs of the same rows, as one page for the raters and a key for its maker."""

import base64
import hashlib
import itertools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.media_decoder import MediaDecoder
from actors.storage import ObjectNotFound, Storage, StorageError, join
from pipeline.finished import FinishedOutput, open_output
from pipeline.page import PAGES, render_page
from pipeline.report_rows import style_name
from pipeline.report_thumbnails import data_uri, read_picture
from schemas.record import RowError, Status
from schemas.review_run import StudyRun
from schemas.run import FetchLimits, UsageError

QUESTIONS = {
    "text": "Which video shows better what the text says?",
    "style": "Which video is closer to the style of the picture?",
    "temporal": "Which video moves more smoothly and naturally?",
}
_REFERENCE_PX = 480
_MAX_REFERENCES = 4
_MAX_PAGE_BYTES = 200 * 2**20
_COLUMNS = ("record_id", "row_id", "row_key", "mode", "prompt", "style_image_uri", "status")


@dataclass(frozen=True)
class Trial:
    """Two videos of one row. Which run each is of stands in the key alone."""

    name: str
    record_id: str
    first: int  # index of the run
    second: int


@dataclass(frozen=True)
class MadeStudy:
    """Where a study was written."""

    page: str
    key: str
    trials: int
    shared_rows: int
    page_bytes: int


def make_study(run: StudyRun, storage: Storage) -> MadeStudy:
    """Writes `study.html` and `key.json`.

    Raises:
        UsageError: the runs share no finished row, or the videos are too large for one page.
    """
    outputs = [open_output(storage, uri) for uri in run.outputs]
    rows = [_ok_rows(output) for output in outputs]
    shared = [key for key in rows[0] if all(_same(rows[0][key], other.get(key)) for other in rows[1:])]
    if not shared:
        raise UsageError("--outputs: no finished row with the same id, prompt and style is in all of them")
    trials = choose_trials(shared, len(outputs), run.pairs, run.seed)
    key_trials = {
        trial.name: {
            "record_id": trial.record_id,
            "row_id": rows[0][trial.record_id]["row_id"],
            "first": trial.first,
            "second": trial.second,
        }
        for trial in trials
    }
    answers = {"runs": [output.uri for output in outputs], "trials": key_trials}
    study_id = f"study-{hashlib.sha256(json.dumps(answers).encode()).hexdigest()[:12]}"
    page, key = join(run.study, "study.html"), join(run.study, "key.json")
    data = {"study": study_id, "questions": QUESTIONS, "trials": _shown_trials(trials, outputs, rows)}
    script = (PAGES / "study.js").read_text(encoding="utf-8")
    html = render_page("study.html", ("base.css", "study.css"), script, data, trials=len(trials)).encode()
    storage.write_bytes(page, html)
    storage.write_bytes(
        key, json.dumps({"study": study_id, **answers}, indent=1, ensure_ascii=False).encode()
    )
    return MadeStudy(page, key, len(trials), len(shared), len(html))


def choose_trials(record_ids: list[str], runs: int, pairs: int, seed: int) -> list[Trial]:
    """Rows at random, every pair of runs about equally often, each on either side equally often."""
    random = np.random.default_rng(seed)
    couples = list(itertools.combinations(range(runs), 2))
    # Row by row in random order, each with the next pair of runs; only then rows a second time.
    order = random.permutation(len(record_ids))
    every = [
        (int(row), (place + turn) % len(couples))
        for turn in range(len(couples))
        for place, row in enumerate(order)
    ]
    trials = []
    seen = dict.fromkeys(range(len(couples)), 0)
    for number, (row, couple) in enumerate(every[:pairs]):
        sides = couples[couple] if seen[couple] % 2 == 0 else couples[couple][::-1]
        seen[couple] += 1
        trials.append(Trial(f"t{number + 1:04d}", record_ids[row], *sides))
    return trials


def _ok_rows(output: FinishedOutput) -> dict[str, dict[str, Any]]:
    return {
        record["record_id"]: record
        for batch in output.batches(_COLUMNS)
        for record in batch.to_pylist()
        if record["status"] == Status.OK and record["mode"] != "image"  # the questions are about videos
    }


def _same(first: dict[str, Any], second: dict[str, Any] | None) -> bool:
    if second is None or first["prompt"] != second["prompt"]:
        return False
    names = [[style_name(uri) for uri in row["style_image_uri"]] for row in (first, second)]
    return names[0] == names[1]


def _shown_trials(
    trials: list[Trial], outputs: list[FinishedOutput], rows: list[dict[str, dict[str, Any]]]
) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    size_bytes = 0
    for trial in trials:
        one = _shown(trial, outputs, rows)
        size_bytes += sum(len(text) for text in (one["first"], one["second"], *one["references"]))
        if size_bytes > _MAX_PAGE_BYTES:
            raise UsageError(
                f"--pairs: {len(trials)} pairs make a page of more than {_MAX_PAGE_BYTES >> 20} MiB; take fewer"
            )
        shown.append(one)
    return shown


def _shown(
    trial: Trial, outputs: list[FinishedOutput], rows: list[dict[str, dict[str, Any]]]
) -> dict[str, Any]:
    row = rows[trial.first][trial.record_id]
    return {
        "name": trial.name,
        "prompt": row["prompt"],
        "references": _references(outputs[trial.first], row["style_image_uri"]),
        "first": _movie(outputs[trial.first], row),
        "second": _movie(outputs[trial.second], rows[trial.second][trial.record_id]),
    }


def _movie(output: FinishedOutput, record: dict[str, Any]) -> str:
    try:
        return base64.b64encode(output.storage.read_bytes(output.video_uri(record))).decode()
    except ObjectNotFound as error:
        raise UsageError(f"{output.uri}: {error}; jobs.reconcile finds such videos") from error


def _references(output: FinishedOutput, uris: list[str]) -> list[str]:
    """The style pictures as data URIs: without them style cannot be judged, so a missing one ends it."""
    config = output.run_json("config.json")
    limits = FetchLimits.model_validate(config.get("limits") or {})
    inputs, decoder = Storage(limits), MediaDecoder(limits)
    pictures = []
    try:
        for uri in uris[:_MAX_REFERENCES]:
            location = output.asset_uri(uri, config)
            pictures.append(data_uri(read_picture(inputs, location, limits, decoder), _REFERENCE_PX))
    except (StorageError, RowError) as error:
        raise UsageError(f"a style picture of {output.uri} cannot be shown: {error}") from error
    finally:
        decoder.close()
    return pictures
