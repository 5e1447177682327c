"""From one manifest row to the videos it asks for: settings resolved, assets versioned, named and seeded."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Protocol

from actors.records import Provenance, Record, broken_record, failed_record
from actors.storage import ObjectStat, resolve
from pipeline.manifest_reader import RawRow
from pipeline.model_info import ModelInfo
from pipeline.scratch import Scratch
from schemas.identity import content_row_id, digest, repeated_row_id, row_key, row_seed
from schemas.manifest import InvalidRowError, ManifestRow, broken_row_id, parse_row
from schemas.planned import AssetRef, PlannedRow
from schemas.record import ErrorClass, RowError, Status
from schemas.run import RenderRun
from schemas.settings import SETTING_NAMES, V1_DEFAULTS, RenderSettings, resolve_settings

_PROBES = 16
_MAX_KEPT_ASSETS = 50_000
_MAX_KEPT_SETTINGS = 1_000
_MAX_KEPT_LOCATIONS = 4_096
_ROW_SETTINGS = tuple(name for name in SETTING_NAMES if name in ManifestRow.model_fields)
_UNSEEN = (
    "unseen"  # the version of an asset that could not be looked at; when it appears, the row's key changes
)


_location = lru_cache(_MAX_KEPT_LOCATIONS)(resolve)  # manifests name the same pictures again and again


class AssetProbe(Protocol):
    """What a plan needs of `AssetLoader`."""

    def probe(self, location: str) -> ObjectStat: ...


class RowPlanner:
    """Plans manifest rows. Every row yields a planned video per sample, or the record of why not."""

    def __init__(self, run: RenderRun, model: ModelInfo, assets: AssetProbe, provenance: Provenance):
        self._run = run
        self._model = model
        self._provenance = provenance
        self._overrides = run.setting_overrides()
        self._versions = _AssetVersions(assets)
        self._row_ids = _RowIds()
        self._resolved: dict[tuple[Any, ...], RenderSettings] = {}

    def plan(self, chunk: list[RawRow]) -> Iterator[PlannedRow | Record]:
        """The videos and failure records of a chunk of rows, in their order."""
        parsed = [self._parse(raw) for raw in chunk]
        self._versions.look_up(
            _location(uri, raw.file_uri)
            for raw, row in zip(chunk, parsed, strict=True)
            if isinstance(row, ManifestRow)
            for uri in row.style_image_uri
        )
        for raw, row in zip(chunk, parsed, strict=True):
            yield from self._plan_row(raw, row)

    def _parse(self, raw: RawRow) -> ManifestRow | RowError:
        if raw.problem is not None:
            return RowError(ErrorClass.MANIFEST_UNREADABLE, raw.problem, Status.INVALID)
        try:
            return parse_row(raw.values)
        except InvalidRowError as error:
            return RowError(ErrorClass.INVALID_ROW, str(error), Status.INVALID)

    def _plan_row(self, raw: RawRow, row: ManifestRow | RowError) -> Iterator[PlannedRow | Record]:
        if isinstance(row, RowError):
            row_id, _ = self._row_ids.claim(broken_row_id(raw.values), digest(repr(raw.values)))
            yield broken_record(raw.values, row_id, self._provenance, row)
            return
        content = self._content(row)
        row_id, is_conflict = self._row_ids.claim(row.row_id or content_row_id(content), digest(content))
        try:
            if is_conflict:
                raise _refused(
                    ErrorClass.DUPLICATE_ROW_ID, f"row_id {row.row_id!r} already names a different row"
                )
            settings = self._settings(row)
        except RowError as error:
            yield broken_record(raw.values, row_id, self._provenance, error)
            return
        for sample_index in range(row.num_samples):
            yield self._plan_sample(raw, row, row_id, settings, sample_index)

    def _content(self, row: ManifestRow) -> dict[str, Any]:
        """What a row itself asks for, whatever the run or the model adds; the frozen v1 defaults are left out."""
        asked = {"prompt": row.prompt, "style_image_uri": row.style_image_uri}
        optional = {"depth_video_uri": row.depth_video_uri, "seed": row.seed}
        changed = {
            name: value
            for name in _ROW_SETTINGS
            if (value := getattr(row, name)) is not None and value != V1_DEFAULTS[name]
        }
        return asked | {name: value for name, value in optional.items() if value is not None} | changed

    def _settings(self, row: ManifestRow) -> RenderSettings:
        settings = self._resolve({name: getattr(row, name) for name in _ROW_SETTINGS})
        multiple = self._model.pixel_multiple
        for name in ("height", "width"):
            if (value := getattr(settings, name)) % multiple:
                raise _refused(
                    ErrorClass.INVALID_ROW,
                    f"{name} = {value}: must be a multiple of {multiple} for this model",
                )
        if settings.mode == "image":
            raise _refused(
                ErrorClass.MODE_UNSUPPORTED, "mode = 'image': only 'video' can be rendered in batches"
            )
        if row.depth_video_uri:
            raise _refused(
                ErrorClass.DEPTH_UNSUPPORTED,
                f"depth_video_uri = {row.depth_video_uri!r}: the model has no depth adapter",
            )
        return settings

    def _resolve(self, own: dict[str, Any]) -> RenderSettings:
        """The settings of a row. Manifests repeat the same few, so those seen are kept."""
        key = tuple(own.values())
        if key not in self._resolved:
            if len(self._resolved) >= _MAX_KEPT_SETTINGS:
                self._resolved.clear()
            self._resolved[key] = resolve_settings(own, self._overrides, self._model.defaults)
        return self._resolved[key]

    def _plan_sample(
        self, raw: RawRow, row: ManifestRow, row_id: str, settings: RenderSettings, sample_index: int
    ) -> PlannedRow | Record:
        assets, error = self._assets(raw, row)
        seed = row_seed(
            run_seed=self._run.seed,
            prompt=row.prompt,
            style_image_uri=row.style_image_uri,
            depth_video_uri=row.depth_video_uri,
            sample_index=sample_index,
            manifest_seed=row.seed,
        )
        key = row_key(
            prompt=row.prompt,
            style_images=[(asset.uri, asset.version) for asset in assets],
            depth_video=None,
            sample_index=sample_index,
            seed=seed,
            settings_changed=settings.changed_from_v1(),
            engine=self._provenance.engine,
            dtype=self._provenance.dtype,
            model_fingerprint=self._provenance.model_fingerprint,
            render_epoch=self._provenance.render_epoch,
        )
        planned = PlannedRow(
            row_id=row_id,
            sample_index=sample_index,
            row_key=key,
            prompt=row.prompt,
            style_images=assets,
            seed=seed,
            priority=row.priority,
            meta=row.meta,
            settings=settings,
        )
        return planned if error is None else failed_record(planned, self._provenance, error, attempts=0)

    def _assets(self, raw: RawRow, row: ManifestRow) -> tuple[list[AssetRef], RowError | None]:
        assets, first_error = [], None
        for uri in row.style_image_uri:
            location = _location(uri, raw.file_uri)
            seen = self._versions[location]
            if isinstance(seen, RowError):
                first_error = first_error or seen
                assets.append(AssetRef(uri=uri, location=location, version=_UNSEEN, size_bytes=0))
            else:
                assets.append(
                    AssetRef(uri=uri, location=location, version=seen.version, size_bytes=seen.size_bytes)
                )
        return assets, first_error


def _refused(error_class: ErrorClass, message: str) -> RowError:
    return RowError(error_class, message, Status.INVALID)


class _AssetVersions(dict[str, ObjectStat | RowError]):
    """What was seen of each distinct asset; each is looked at once per plan, up to very many of them."""

    def __init__(self, assets: AssetProbe):
        super().__init__()
        self._assets = assets

    def look_up(self, locations: Iterable[str]) -> None:
        wanted = list(dict.fromkeys(locations))
        new = [location for location in wanted if location not in self]
        if not new:
            return
        if len(self) >= _MAX_KEPT_ASSETS:
            self.clear()
            new = wanted
        with ThreadPoolExecutor(_PROBES) as probes:
            self.update(zip(new, probes.map(self._probe, new), strict=True))

    def _probe(self, location: str) -> ObjectStat | RowError:
        try:
            return self._assets.probe(location)
        except RowError as error:
            return error


class _RowIds:
    """Gives every manifest row a row_id of its own."""

    def __init__(self) -> None:
        self._claims = Scratch()
        self._claims.execute("CREATE TABLE claims (row_id PRIMARY KEY, count, content) WITHOUT ROWID")

    def claim(self, row_id: str, content: str) -> tuple[str, bool]:
        """The id for the next row that asks for `row_id`, and whether that id names other content already."""
        known = self._known(row_id)
        if known is None:
            self._keep(row_id, 1, content)
            return row_id, False
        count, first_content = known
        claimed = row_id
        while self._known(claimed) is not None:
            count += 1
            claimed = repeated_row_id(row_id, count)
        self._keep(claimed, 1, content)
        self._keep(row_id, count, first_content)
        return claimed, content != first_content

    def _known(self, row_id: str) -> tuple[Any, ...] | None:
        return self._claims.one("SELECT count, content FROM claims WHERE row_id = ?", (row_id,))

    def _keep(self, row_id: str, count: int, content: str) -> None:
        self._claims.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (row_id, count, content))
