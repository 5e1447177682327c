"""Evaluates a finished output: the paper's metrics and ours, over all its videos, on a pool of actors."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from actors.evaluator import SCORES, EvaluatorConfig, VideoEvaluator
from actors.storage import Storage, join
from actors.uris import absolute_path, is_local
from pipeline.cluster import ray_session
from pipeline.compute import choose_compute, resources
from pipeline.evaluate_statistics import Interval, mean_interval
from pipeline.failures import as_run_failure
from pipeline.files import write_parquet
from pipeline.finished import FinishedOutput, open_output
from pipeline.gpus import choose_compute_now
from schemas.record import RECORD_SCHEMA, Status
from schemas.review_run import EvaluateRun
from schemas.run import FetchLimits, UsageError
from stylecrafter.metrics import content_leak, style_rank

METRICS = {
    "clip_text": "CLIP-Text",
    "clip_style": "CLIP-Style",
    "clip_temp": "CLIP-Temp",
    "dino_style": "DINO-Style",
    "warping_error": "Warping error",
    "content_leak": "Content leak",
    "style_first": "Style retrieved",  # share of videos whose own style is the nearest
    "style_rank": "Style rank",
}
LOWER_IS_BETTER = frozenset({"warping_error", "content_leak", "style_rank"})
_BATCH = 4
_OF_RECORDS = ("record_id", "row_id", "sample_index", "variant", "prompt", "style_image_uri")
_COLUMNS = (
    *_OF_RECORDS, "row_key", "style_image_sha256", "mode", "image_format", "sha256", "size_bytes", "duration_s", "num_frames", "height", "width", "fusion_scales", "status",
)  # fmt: skip
ROWS_SCHEMA = pa.schema(
    [
        *(RECORD_SCHEMA.field(name) for name in _OF_RECORDS),
        pa.field("style", pa.string()),  # one name for the set of references
        *(pa.field(name, pa.float64()) for name in METRICS),
        pa.field("fusion_scales", pa.list_(pa.float32())),
        pa.field("models", pa.string()),
        pa.field("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, over all videos."""

    videos: int
    styles: int
    references: int  # per style, at most
    mode: str
    models: str
    metrics: dict[str, Interval]
    by_style: dict[str, dict[str, float]]  # style -> metric -> mean
    by_prompt: dict[str, dict[str, float]]
    by_variant: dict[str, dict[str, float]] = field(default_factory=dict)  # of a sweep: its combinations
    errors: dict[str, str] = field(default_factory=dict)  # row_id -> why it has no scores

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(run: EvaluateRun, storage: Storage) -> Evaluation:
    """Scores every video of a finished output; writes `run/evaluation/` (rows.parquet, evaluation.json).

    Raises:
        UsageError: nothing is rendered there, or a model directory does not hold what it should.
        InfrastructureError: the output or the actors failed.
    """
    output = open_output(storage, run.output)
    records = _records(output)
    evaluated = {
        row["record_id"]: row for row in evaluate_videos(evaluator_config(run, output), records, run)
    }
    rows = _joined(records, [evaluated[record["record_id"]] for record in records])
    evaluation = _summed_up(rows, run.resamples)
    folder = join(output.uri, "run", "evaluation")
    write_parquet(storage, join(folder, "rows.parquet"), pa.Table.from_pylist(rows, schema=ROWS_SCHEMA))
    body = json.dumps(evaluation.as_json(), indent=2, ensure_ascii=False)
    storage.write_bytes(join(folder, "evaluation.json"), body.encode())
    return evaluation


def evaluator_config(run: EvaluateRun, output: FinishedOutput) -> EvaluatorConfig:
    """What the actors are built from.

    Raises:
        UsageError: no CLIP is given, and the output does not say which model made it.
    """
    config = output.run_json("config.json")
    clip = run.clip or run.model or config.get("model")
    if not clip:
        raise UsageError(f"output = {run.output!r}: run/config.json names no model; give --clip")
    compute = choose_compute_now(run)
    return EvaluatorConfig(
        output=output.uri,
        clip=_absolute(clip),
        dino=run.dino and _absolute(run.dino),
        flow=run.flow and _absolute(run.flow),
        device=compute.device,
        threads=compute.threads,
        limits=FetchLimits.model_validate(config.get("limits") or {}),
    )


def _absolute(uri: str) -> str:
    """A worker's own folder is another."""
    return absolute_path(uri) if is_local(uri) else uri


def evaluate_videos(
    config: EvaluatorConfig, records: list[dict[str, Any]], run: EvaluateRun
) -> Iterator[dict[str, Any]]:
    """A row of `EVALUATED_SCHEMA` for each record, as the actors finish them."""
    compute = choose_compute(run, resources())
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with ray_session(), as_run_failure("the evaluators"):
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.raise_original_map_exception = True  # else the actor's own error does not reach the driver
        rows = (
            ray.data.from_arrow(pa.Table.from_pylist(records))
            .repartition(target_num_rows_per_block=_BATCH)
            .map_batches(
                VideoEvaluator,
                fn_constructor_args=[config],
                batch_size=_BATCH,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=min(compute.actors, -(-len(records) // _BATCH))),
                num_cpus=compute.cpus_per_actor,
                num_gpus=compute.gpus_per_actor or None,
            )
        )
        yield from rows.iter_rows()


def _records(output: FinishedOutput) -> list[dict[str, Any]]:
    """The ok records, with the place that each style picture is read from."""
    config = output.run_json("config.json")
    found = [
        record
        | {"style_locations": [output.asset_uri(uri, config) for uri in record["style_image_uri"] or ()]}
        for batch in output.batches(_COLUMNS)
        for record in batch.to_pylist()
        if record["status"] == Status.OK
    ]
    if not found:
        raise UsageError(f"output = {output.uri!r}: no video there is finished")
    return found


def _joined(records: list[dict[str, Any]], evaluated: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `ROWS_SCHEMA`, with what takes all styles at once: rank and content leak."""
    rows = [
        {name: record[name] for name in _OF_RECORDS}
        | {"style": ";".join(record["style_image_uri"]), "fusion_scales": record["fusion_scales"]}
        | {name: scores[name] for name in (*SCORES, "models", "error")}
        for record, scores in zip(records, evaluated, strict=True)
    ]
    scored = [index for index, scores in enumerate(evaluated) if scores["error"] is None]
    styles = list(dict.fromkeys(rows[index]["style"] for index in scored))
    if len(styles) < 2:
        return rows
    first = {style: next(index for index in scored if rows[index]["style"] == style) for style in styles}
    own = np.array([styles.index(rows[index]["style"]) for index in scored])

    def stacked(name: str, indices: list[int]) -> np.ndarray:
        return np.array([evaluated[index][name] for index in indices], dtype=np.float32)

    ranks = style_rank(stacked("frames", scored), stacked("references", list(first.values())), own)
    leaks = content_leak(
        stacked("frames_layout", scored), stacked("references_layout", list(first.values())), own
    )
    for index, rank, leak in zip(scored, ranks, leaks, strict=True):
        rows[index] |= {
            "style_rank": float(rank),
            "style_first": float(rank == 1),
            "content_leak": float(leak),
        }
    return rows


def _summed_up(rows: list[dict[str, Any]], resamples: int) -> Evaluation:
    scored = [row for row in rows if row["error"] is None]
    prompts, styles, variants = ([row[name] for row in scored] for name in ("prompt", "style", "variant"))
    values = {name: np.array([row.get(name) for row in scored], dtype=float) for name in METRICS}
    metrics = {
        name: mean_interval(found, (prompts, styles), resamples)
        for name, found in values.items()
        if np.isfinite(found).any()
    }
    return Evaluation(
        videos=len(scored),
        styles=len(set(styles)),
        references=max((len(row["style_image_uri"]) for row in scored), default=0),
        mode="image" if scored and all(row["clip_temp"] is None for row in scored) else "video",
        models=rows[0]["models"],
        metrics=metrics,
        by_style=_means(styles, values, metrics),
        by_prompt=_means(prompts, values, metrics),
        by_variant=_means(variants, values, metrics) if any(variants) else {},
        errors={_name(row): row["error"] for row in rows if row["error"] is not None},
    )


def _name(row: dict[str, Any]) -> str:
    return f"{row['row_id']} {row['variant']}".rstrip()


def _means(
    labels: list[str], values: dict[str, np.ndarray], metrics: dict[str, Interval]
) -> dict[str, dict[str, float]]:
    """Mean of each metric for each label, in the order of the rows."""
    place = np.array(labels)
    found: dict[str, dict[str, float]] = {}
    for label in dict.fromkeys(labels):
        mine = place == label
        found[label] = {
            name: float(np.nanmean(values[name][mine]))
            for name in metrics
            if np.isfinite(values[name][mine]).any()
        }
        found[label]["videos"] = int(mine.sum())
    return found
