"""From one manifest row to the videos it asks for: settings resolved, assets versioned, named and seeded."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Protocol

from actors.records import Provenance, Record, broken_record, failed_record
from actors.storage import ObjectStat, resolve
from pipeline.manifest_reader import RawRow
from pipeline.model_info import ModelInfo
from pipeline.row_settings import RowSettings, changed_by, too_many_steps
from pipeline.scratch import Scratch
from schemas.identity import content_row_id, digest, repeated_row_id, row_key, row_seed
from schemas.manifest import InvalidRowError, broken_row_id, parse_row
from schemas.manifest_row import ManifestRow
from schemas.planned import AssetRef, PlannedRow
from schemas.record import ErrorClass, RowError, Status
from schemas.run import RenderRun, UsageError
from schemas.settings import RenderSettings

_PROBES = 16
_MAX_KEPT_ASSETS = 50_000
_MAX_KEPT_LOCATIONS = 4_096
_UNSEEN = (
    "unseen"  # the version of an asset that could not be looked at; when it appears, the row's key changes
)


_location = lru_cache(_MAX_KEPT_LOCATIONS)(resolve)  # manifests name the same pictures again and again


class AssetProbe(Protocol):
    """What a plan needs of `AssetLoader`."""

    def probe(self, location: str) -> ObjectStat: ...

    def probe_depth(self, location: str) -> ObjectStat: ...


class RowPlanner:
    """Plans manifest rows. Every row yields a planned video per sample, or the record of why not."""

    def __init__(self, run: RenderRun, model: ModelInfo, assets: AssetProbe, provenance: Provenance):
        self._run = run
        self._provenance = provenance
        self._settings_of = RowSettings(run, model)
        self._speed = run.speed.renaming()
        self._combinations = run.sweep.combinations()
        self._versions = _AssetVersions(assets.probe)
        self._depth_versions = _AssetVersions(assets.probe_depth)
        self._row_ids = _RowIds()

    @property
    def has_repeated_ids(self) -> bool:
        """Whether a row was named by what stood before it, so that it cannot be planned without."""
        return self._row_ids.repeated

    def look_at(self, chunk: list[RawRow]) -> str | None:
        """What is seen now of the pictures of rows that were planned before (see `pictures`)."""
        if (assets := _named_assets(chunk)) is None:
            return None
        self._versions.look_up(assets[0])
        self._depth_versions.look_up(assets[1])
        return self.pictures(chunk)

    def pictures(self, chunk: list[RawRow]) -> str | None:
        """A hash of what was seen of the rows' pictures; None where a row or one of its pictures cannot be used."""
        if (assets := _named_assets(chunk)) is None:
            return None
        seen: list[list[tuple[str, int]]] = []
        for locations, versions in zip(assets, (self._versions, self._depth_versions), strict=True):
            found = [versions.get(location) for location in locations]
            stats = [(stat.version, stat.size_bytes) for stat in found if isinstance(stat, ObjectStat)]
            if len(stats) < len(found):
                return None
            seen.append(stats)
        return digest(seen)

    def plan(self, chunk: list[RawRow]) -> Iterator[PlannedRow | Record]:
        """The videos and failure records of a chunk of rows, in their order."""
        parsed = [self._parse(raw) for raw in chunk]
        rows = [(raw, row) for raw, row in zip(chunk, parsed, strict=True) if isinstance(row, ManifestRow)]
        self._versions.look_up(
            _location(uri, raw.file_uri) for raw, row in rows for uri in row.style_image_uri
        )
        self._depth_versions.look_up(
            _location(row.depth_video_uri, raw.file_uri) for raw, row in rows if row.depth_video_uri
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
            for variant, swept in self._combinations:
                own = settings.model_copy(update=swept) if swept else settings
                yield self._plan_sample(raw, row, row_id, own, sample_index, variant)

    def _content(self, row: ManifestRow) -> dict[str, Any]:
        """What a row itself asks for, whatever the run or the model adds; the frozen v1 defaults are left out."""
        asked = {"prompt": row.prompt, "style_image_uri": row.style_image_uri}
        optional = {"depth_video_uri": row.depth_video_uri, "seed": row.seed}
        return (
            asked | {name: value for name, value in optional.items() if value is not None} | changed_by(row)
        )

    def _settings(self, row: ManifestRow) -> RenderSettings:
        for name in self._run.sweep.axes:
            if getattr(row, name, None) is not None:
                raise UsageError(
                    f"manifest: the row {row.prompt!r} has its own {name}, which --sweep.{name.replace('_', '-')} "
                    "sweeps; drop that column or that sweep"
                )
        return self._settings_of.of(row)

    def _plan_sample(
        self,
        raw: RawRow,
        row: ManifestRow,
        row_id: str,
        settings: RenderSettings,
        sample_index: int,
        variant: str,
    ) -> PlannedRow | Record:
        assets, depth, error = self._assets(raw, row)
        if variant and (problem := too_many_steps(settings)):
            error = _refused(ErrorClass.INVALID_ROW, problem)
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
            depth_video=(depth.uri, depth.version) if depth else None,
            sample_index=sample_index,
            seed=seed,
            settings_changed=settings.changed_from_v1() | self._speed,
            engine=self._provenance.engine,
            dtype=self._provenance.dtype,
            model_fingerprint=self._provenance.model_fingerprint,
            render_epoch=self._provenance.render_epoch,
        )
        planned = PlannedRow(
            row_id=row_id,
            sample_index=sample_index,
            variant=variant,
            row_key=key,
            prompt=row.prompt,
            style_images=assets,
            depth_video=depth,
            seed=seed,
            priority=row.priority,
            meta=row.meta,
            settings=settings,
        )
        return planned if error is None else failed_record(planned, self._provenance, error, attempts=0)

    def _assets(
        self, raw: RawRow, row: ManifestRow
    ) -> tuple[list[AssetRef], AssetRef | None, RowError | None]:
        """The style images, the depth video if there is one, and the first thing that is wrong with any."""
        seen = [_seen(uri, raw, self._versions) for uri in row.style_image_uri]
        depth = [_seen(row.depth_video_uri, raw, self._depth_versions)] if row.depth_video_uri else []
        error = next((error for _, error in [*seen, *depth] if error), None)
        return [asset for asset, _ in seen], depth[0][0] if depth else None, error


def _named_assets(chunk: list[RawRow]) -> tuple[list[str], list[str]] | None:
    """The distinct locations of the style pictures and of the depth videos, unless a row names none properly."""
    style: dict[str, None] = {}
    depth: dict[str, None] = {}
    for raw in chunk:
        uris, depth_uri = raw.values.get("style_image_uri"), raw.values.get("depth_video_uri")
        uris = [uris] if isinstance(uris, str) else uris
        if raw.problem or not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
            return None
        style |= dict.fromkeys(_location(uri, raw.file_uri) for uri in uris)
        if isinstance(depth_uri, str):
            depth[_location(depth_uri, raw.file_uri)] = None
    return list(style), list(depth)


def _seen(uri: str, raw: RawRow, versions: "_AssetVersions") -> tuple[AssetRef, RowError | None]:
    """An asset as it was seen, or why it was not."""
    location = _location(uri, raw.file_uri)
    found = versions[location]
    if isinstance(found, RowError):
        return AssetRef(uri=uri, location=location, version=_UNSEEN, size_bytes=0), found
    return AssetRef(uri=uri, location=location, version=found.version, size_bytes=found.size_bytes), None


def _refused(error_class: ErrorClass, message: str) -> RowError:
    return RowError(error_class, message, Status.INVALID)


class _AssetVersions(dict[str, ObjectStat | RowError]):
    """What was seen of each distinct asset; each is looked at once per plan, up to very many of them."""

    def __init__(self, probe: Callable[[str], ObjectStat]):
        super().__init__()
        self._look = probe

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
            return self._look(location)
        except RowError as error:
            return error


class _RowIds:
    """Gives every manifest row a row_id of its own."""

    def __init__(self) -> None:
        self.repeated = False
        self._claims = Scratch()
        self._claims.execute("CREATE TABLE claims (row_id PRIMARY KEY, count, content) WITHOUT ROWID")

    def claim(self, row_id: str, content: str) -> tuple[str, bool]:
        """The id for the next row that asks for `row_id`, and whether that id names other content already."""
        new = self._claims.execute("INSERT OR IGNORE INTO claims VALUES (?, 1, ?)", (row_id, content))
        if new.rowcount:
            return row_id, False
        self.repeated = True
        known = self._known(row_id)
        assert known
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
