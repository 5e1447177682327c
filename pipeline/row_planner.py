"""From one manifest row to the videos it asks for: settings resolved, assets versioned, named and seeded."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from actors.assets import AssetLoader
from actors.records import Provenance, Record, broken_record, failed_record
from actors.storage import ObjectStat, resolve
from pipeline.manifest_reader import RawRow
from pipeline.model_info import ModelInfo
from schemas.identity import content_row_id, digest, repeated_row_id, row_key, row_seed
from schemas.manifest import InvalidRowError, ManifestRow, broken_row_id, parse_row
from schemas.planned import AssetRef, PlannedRow
from schemas.record import ErrorClass, RowError, Status
from schemas.run import RenderRun
from schemas.settings import SETTING_NAMES, RenderSettings, resolve_settings

_PROBES = 16
_UNSEEN = (
    "unseen"  # the version of an asset that could not be looked at; when it appears, the row's key changes
)


class RowPlanner:
    """Plans manifest rows. Every row yields a planned video per sample, or the record of why not."""

    def __init__(self, run: RenderRun, model: ModelInfo, assets: AssetLoader, provenance: Provenance):
        self._run = run
        self._model = model
        self._provenance = provenance
        self._overrides = run.setting_overrides()
        self._versions = _AssetVersions(assets)
        self._row_ids = _RowIds()

    def plan(self, chunk: list[RawRow]) -> Iterator[PlannedRow | Record]:
        """The videos and failure records of a chunk of rows, in their order."""
        parsed = [self._parse(raw) for raw in chunk]
        self._versions.look_up(
            resolve(uri, raw.file_uri)
            for raw, row in zip(chunk, parsed, strict=True)
            if isinstance(row, ManifestRow)
            for uri in row.style_image_uri
        )
        for raw, row in zip(chunk, parsed, strict=True):
            yield from self._plan_row(raw, row)

    def _parse(self, raw: RawRow) -> ManifestRow | RowError:
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
        own = {name: getattr(row, name, None) for name in SETTING_NAMES}
        changed = {
            name: value
            for name, value in own.items()
            if value not in (None, RenderSettings.model_fields[name].default)
        }
        return asked | {name: value for name, value in optional.items() if value is not None} | changed

    def _settings(self, row: ManifestRow) -> RenderSettings:
        settings = resolve_settings(row.model_dump(), self._overrides, self._model.defaults)
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
            location = resolve(uri, raw.file_uri)
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
    """What was seen of each distinct asset; each is looked at once per plan."""

    def __init__(self, assets: AssetLoader):
        super().__init__()
        self._assets = assets

    def look_up(self, locations: Iterable[str]) -> None:
        new = [location for location in dict.fromkeys(locations) if location not in self]
        if not new:
            return
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
        self._seen: dict[str, tuple[int, str]] = {}

    def claim(self, row_id: str, content: str) -> tuple[str, bool]:
        """The id for the next row that asks for `row_id`, and whether that id names other content already."""
        count, first_content = self._seen.get(row_id, (0, content))
        claimed = row_id
        while claimed in self._seen:
            count += 1
            claimed = repeated_row_id(row_id, count)
        self._seen[claimed] = (1, content)
        self._seen[row_id] = (max(count, 1), first_content)
        return claimed, content != first_content
