"""What a folder of pictures says about them: captions beside the files and in metadata files."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from actors.storage import Storage, TooLarge
from pipeline.manifest_sources import SourceRow, read_rows
from schemas.manifest import ManifestError
from schemas.manifest_row import MAX_PROMPT_CHARS

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
_UNREADABLE_LINE = "a line of metadata that cannot be used"
_CAPTION_COLUMNS = ("text", "caption")
_MAX_CAPTION_BYTES = 4 * MAX_PROMPT_CHARS
_READERS = 16  # of sidecars, which are small and may be far away


@dataclass(frozen=True)
class Described:
    """What is known of one file, or why that cannot be used."""

    caption: str | None = None
    style_id: str | None = None
    problem: str | None = None


def read_sidecars(storage: Storage, uris: Mapping[str, str]) -> dict[str, Described]:
    """The captions in text files, by the keys of `uris`; line breaks become spaces.

    Raises:
        StorageError: one cannot be read (that it is too large is its own problem, told in the result).
    """
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(uris, pool.map(lambda uri: _sidecar(storage, uri), uris.values()), strict=True))


def _sidecar(storage: Storage, uri: str) -> Described:
    try:
        text = storage.read_bytes(uri, max_bytes=_MAX_CAPTION_BYTES).decode("utf-8-sig")
    except TooLarge:
        return Described(problem=f"the text beside it has more than {_MAX_CAPTION_BYTES} bytes")
    except UnicodeDecodeError:
        return Described(problem="the text beside it is not UTF-8")
    return Described(caption=" ".join(text.split()) or None)


def read_metadata(storage: Storage, uri: str, folder: str) -> Iterator[tuple[str, Described]]:
    """Every line of a metadata file as (path, what it says); a path is relative like `folder`, which holds the file.

    A line that cannot be read comes with its place and what is wrong instead of a path, and a problem.

    Raises:
        ManifestError: the file as a whole cannot be read.
    """
    for row in read_rows(storage, uri):
        name = row.values.get("file_name")
        place = posixpath.join(folder, f"{posixpath.basename(uri)}, {row.place}")
        if row.problem is not None:
            yield f"{place}: {row.problem}", Described(problem=_UNREADABLE_LINE)
        elif not isinstance(name, str) or not name.strip():
            yield f"{place}: has no file_name", Described(problem=_UNREADABLE_LINE)
        else:
            yield posixpath.normpath(posixpath.join(folder, name)), _described(row)


def _described(row: SourceRow) -> Described:
    given = (row.values[column] for column in _CAPTION_COLUMNS if row.values.get(column) is not None)
    caption, style = next(given, None), row.values.get("style_id")
    if not isinstance(caption, str | None):
        return Described(problem="its caption in the metadata is not text")
    if not isinstance(style, str | int | None) or isinstance(style, bool):
        return Described(problem="its style_id in the metadata is neither text nor a whole number")
    words = " ".join(caption.split()) if caption else None
    return Described(words or None, None if style is None else str(style).strip() or None)


def caption_from_name(path: str) -> str | None:
    """`fox/a_red_fox-02.png` -> "a red fox 02"; None for a name without letters, such as a number."""
    stem = posixpath.splitext(posixpath.basename(path))[0]
    words = " ".join(re.split(r"[\s_+.-]+", stem)).strip()
    return words if any(character.isalpha() for character in words) else None


def metadata_of_folder(names: Mapping[str, str]) -> dict[str, str]:
    """The metadata file of each folder that has one, among relative paths and their URIs.

    Raises:
        ManifestError: a folder has both kinds.
    """
    found: dict[str, str] = {}
    for path, uri in names.items():
        folder, name = posixpath.split(path)
        if name not in METADATA_NAMES:
            continue
        if folder in found:
            raise ManifestError(f"{uri}: there is a metadata.csv and a metadata.jsonl; only one can be right")
        found[folder] = uri
    return found
