"""A folder of pictures and videos as a training manifest. What cannot be used is left out, and named."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from actors.storage import Storage, UriForbidden, resolve
from pipeline.train_captions import (
    Described,
    caption_from_name,
    metadata_of_folder,
    read_metadata,
    read_sidecars,
)
from schemas.manifest import ManifestError, shorten
from schemas.manifest_row import MAX_PROMPT_CHARS, MAX_URI_CHARS
from schemas.train_manifest import TrainManifestRun
from schemas.training import IMAGE_SUFFIXES, KINDS, TRAINING_SCHEMA, VIDEO_SUFFIXES, Kind, usable_rows
from stylecrafter.captions import remove_style_phrases

_SCHEMA = TRAINING_SCHEMA.remove(TRAINING_SCHEMA.get_field_index("depth_uri"))  # folders have no depth
_NAMED = 5  # files of each reason
_NO_CAPTION = "no caption (in NAME.txt beside it, or in metadata.jsonl or metadata.csv)"
_NO_WORDS_IN_NAME = "no caption, and none in its name"
_BAD_NAME = f"its name holds a control character or '..', or the URI more than {MAX_URI_CHARS} characters"
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_NOT_THERE = "the metadata names it, but there is no such picture or video"


@dataclass(frozen=True)
class TrainingManifest:
    """What was found in a folder: the rows, sorted by path, and the files that were left out, by reason."""

    table: pa.Table
    skipped: dict[str, list[str]]

    def describe(self) -> str:
        """The rows in numbers."""
        kinds = self.table["kind"].to_pylist()
        counts = " and ".join(f"{count} {kind}s" for kind in KINDS if (count := kinds.count(kind)))
        styles = len(set(self.table["style_id"].to_pylist()) - {None})
        return f"{counts} ({styles} styles)"

    @property
    def all_videos_styled(self) -> bool:
        """Whether there are videos and each has a style: then training gives them style references, too."""
        styles = [row["style_id"] for row in self.table.to_pylist() if row["kind"] == "video"]
        return bool(styles) and None not in styles

    def describe_skipped(self) -> list[str]:
        """One line per reason: how many files, and the first of them."""
        lines = []
        for reason, paths in self.skipped.items():
            more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
            lines.append(f"{len(paths)} left out, {reason}: {', '.join(map(shorten, paths[:_NAMED]))}{more}")
        return lines


def build_training_manifest(run: TrainManifestRun, storage: Storage) -> TrainingManifest:
    """The manifest of a run's folder; local URIs in it are absolute.

    Raises:
        ManifestError: there is no picture or video, none of them can be used, or a metadata file is broken.
    """
    found = _files_below(storage, run.folder)
    media = {path: kind for path in found if (kind := _kind(path)) is not None}
    if not media:
        allowed = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
        raise ManifestError(f"{run.folder}: holds no picture or video ({allowed})")
    skipped: dict[str, list[str]] = defaultdict(list)
    described = _descriptions(storage, found, media, skipped)
    rows = []
    for path, kind in media.items():
        said = described.get(path, Described())
        caption = said.caption or (caption_from_name(path) if run.caption_from_name else None)
        if run.destyle and caption:
            caption = remove_style_phrases(caption)
        style_id = _style(run, path, said)
        if problem := said.problem or _problem(storage, run, found[path], caption, style_id):
            skipped[problem].append(path)
        else:
            rows.append({"uri": found[path], "caption": caption, "style_id": style_id, "kind": kind})
    manifest = TrainingManifest(pa.Table.from_pylist(rows, schema=_SCHEMA), dict(skipped))
    assert not usable_rows(manifest.table)[1], "training would use every row"
    if not rows:
        raise ManifestError(
            "\n  ".join([f"{run.folder}: nothing in it can be used", *manifest.describe_skipped()])
        )
    return manifest


def _files_below(storage: Storage, folder: str) -> dict[str, str]:
    """URI of each file by its path below the folder, sorted; hidden ones belong to tools."""
    here = f"{Path.cwd()}/"
    root = resolve(folder, here).rstrip("/") + "/"
    uris = (resolve(stat.uri, here) for stat in storage.list(folder))
    paths = {uri.removeprefix(root): uri for uri in uris}
    return {
        path: paths[path]
        for path in sorted(paths)
        if not any(part.startswith(".") and part != ".." for part in path.split("/"))
    }


def _kind(path: str) -> Kind | None:
    suffix = posixpath.splitext(path)[1].lower().removeprefix(".")
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None


def _descriptions(
    storage: Storage, found: Mapping[str, str], media: Mapping[str, Kind], skipped: dict[str, list[str]]
) -> dict[str, Described]:
    """What is said of each file; the text beside a file comes before a metadata file's."""
    described: dict[str, Described] = {}
    for folder, uri in metadata_of_folder(found).items():
        for path, said in read_metadata(storage, uri, folder):
            if path in media and described.setdefault(path, said) != said:
                described[path] = Described(problem="the metadata describes it twice, differently")
            elif path not in media:
                skipped[said.problem or _NOT_THERE].append(path)
    texts = {posixpath.splitext(path)[0]: uri for path, uri in found.items() if path.lower().endswith(".txt")}
    wanted = {path: texts[stem] for path in media if (stem := posixpath.splitext(path)[0]) in texts}
    for path, beside in read_sidecars(storage, wanted).items():
        if beside.caption or beside.problem:
            style = described.get(path, Described()).style_id
            described[path] = Described(beside.caption, style, beside.problem)
    return described


def _style(run: TrainManifestRun, path: str, said: Described) -> str | None:
    folder, is_below, _ = path.partition("/")
    return said.style_id or (folder if is_below and run.style_ids == "from-folders" else None)


def _problem(
    storage: Storage, run: TrainManifestRun, uri: str, caption: str | None, style_id: str | None
) -> str | None:
    """Why training could not use such a row (see `schemas.training.usable_rows`), in words for its file."""
    if not caption:
        return _NO_WORDS_IN_NAME if run.caption_from_name else _NO_CAPTION
    if len(caption) > MAX_PROMPT_CHARS:
        return f"its caption has more than {MAX_PROMPT_CHARS} characters"
    try:
        "\n".join([uri, caption, style_id or ""]).encode()
        storage.check_input(uri)
    except UnicodeEncodeError:
        return "its name, folder or caption is not UTF-8 text"
    except UriForbidden:
        return _BAD_NAME
    return _BAD_NAME if len(uri) > MAX_URI_CHARS or _CONTROL_CHARACTER.search(uri) else None
