"""The votes of a study, counted: preferences with intervals, and how far the raters agree."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actors.storage import ObjectNotFound, Storage, join
from pipeline.evaluate_statistics import Interval, mean_interval
from pipeline.study import QUESTIONS
from schemas.review_run import StudyRun
from schemas.run import UsageError

_MAX_BYTES = 16 * 2**20
Choice = Literal["first", "second", "same"]


class Vote(BaseModel):
    """One answer of one rater."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    trial: str
    question: Literal["text", "style", "temporal"]
    choice: Choice


class Ballot(BaseModel):
    """What the page lets a rater download."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    study: str
    rater: str
    votes: list[Vote]


@dataclass(frozen=True)
class Preference:
    """How often a run was preferred to another, over all raters; "the same" counts half."""

    question: str
    run: str
    other: str
    share: Interval
    same: float  # share of votes for "the same"


@dataclass(frozen=True)
class StudyResult:
    """A study, counted."""

    raters: int
    votes: int
    preferences: list[Preference]
    overall: dict[str, dict[str, Interval]]  # question -> run -> share of its comparisons won
    agreement: dict[
        str, float | None
    ]  # question -> Krippendorff's alpha; None where no two saw the same pair

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def collect(run: StudyRun, storage: Storage) -> StudyResult:
    """Counts the votes and writes `results.json` into the study's folder.

    Raises:
        UsageError: no key, no votes, or votes of another study.
    """
    key = _json(storage, join(run.study, "key.json"))
    votes = _votes(run, storage, key)
    runs = [str(uri) for uri in key["runs"]]
    result = StudyResult(
        raters=len({rater for rater, _, _ in votes}),
        votes=len(votes),
        preferences=_preferences(votes, key, runs, run.resamples),
        overall=_overall(votes, key, runs, run.resamples),
        agreement={question: _agreement(votes, question) for question in QUESTIONS},
    )
    body = json.dumps(result.as_json(), indent=1, ensure_ascii=False)
    storage.write_bytes(join(run.study, "results.json"), body.encode())
    return result


def krippendorff_alpha(units: list[list[str]]) -> float | None:
    """Agreement on nominal values, 1 for perfect, 0 for chance; None where nothing can be compared.

    Args:
        units: the values that each unit was given, one per rater who saw it.
    """
    pairable = [unit for unit in units if len(unit) > 1]
    totals = Counter(value for unit in pairable for value in unit)
    count = totals.total()
    observed = sum(
        (len(unit) ** 2 - sum(number**2 for number in Counter(unit).values())) / (len(unit) - 1)
        for unit in pairable
    )
    expected = (count**2 - sum(number**2 for number in totals.values())) / (count - 1) if count > 1 else 0.0
    return 1 - observed / expected if expected else None


def print_result(result: StudyResult, console: Console) -> None:
    """The preferences as tables."""
    console.print(f"{result.votes} votes of {result.raters} raters", highlight=False)
    table = Table(title="Preferred to the other, % [95 % interval]", title_justify="left")
    for name in ("question", "run", "other", "preferred", "same", "votes"):
        table.add_column(
            name, justify="left" if name in ("question", "run", "other") else "right", overflow="fold"
        )
    for found in result.preferences:
        same, count = f"{100 * found.same:.0f}", str(found.share.count)
        table.add_row(
            found.question, escape(found.run), escape(found.other), _percent(found.share), same, count
        )
    console.print(table)
    if len({found.run for found in result.preferences} | {found.other for found in result.preferences}) > 2:
        overall = Table(title="Share of its comparisons that a run wins, %", title_justify="left")
        for name in ("run", *result.overall):
            overall.add_column(name, overflow="fold")
        for uri in next(iter(result.overall.values())):
            overall.add_row(escape(uri), *(_percent(shares[uri]) for shares in result.overall.values()))
        console.print(overall)
    said = [f"{name} {'–' if alpha is None else f'{alpha:.2f}'}" for name, alpha in result.agreement.items()]
    console.print(f"Krippendorff's alpha (1 agreement, 0 chance): {', '.join(said)}", highlight=False)


Votes = dict[tuple[str, str, str], Choice]  # (rater, trial, question) -> choice


def _votes(run: StudyRun, storage: Storage, key: dict[str, Any]) -> Votes:
    votes: Votes = {}
    for uri in _files(run, storage):
        try:
            ballot = Ballot.model_validate(_json(storage, uri))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise UsageError(
                f"{uri}: {where}: {problem['msg']}; expected the JSON that study.html gives"
            ) from None
        if ballot.study != key["study"]:
            raise UsageError(f"{uri}: votes of {ballot.study!r}, but key.json is of {key['study']!r}")
        for vote in ballot.votes:
            if vote.trial not in key["trials"]:
                raise UsageError(f"{uri}: trial {vote.trial!r} is not in key.json")
            votes[ballot.rater, vote.trial, vote.question] = vote.choice
    if not votes:
        raise UsageError(f"--collect {' '.join(run.collect)}: no votes there")
    return votes


def _files(run: StudyRun, storage: Storage) -> list[str]:
    files = []
    for uri in run.collect:
        if uri.endswith(".json"):
            files.append(uri)
        else:
            files += sorted(stat.uri for stat in storage.list(uri) if stat.uri.endswith(".json"))
    return files


def _preferences(votes: Votes, key: dict[str, Any], runs: list[str], resamples: int) -> list[Preference]:
    found = []
    for question in QUESTIONS:
        for first in range(len(runs)):
            for second in range(first + 1, len(runs)):
                points = _points(votes, key, question, first, second)
                if points:
                    share = _share(points, resamples)
                    same = float(np.mean([point == 0.5 for _, _, point in points]))
                    found.append(Preference(question, runs[first], runs[second], share, same))
    return found


def _overall(
    votes: Votes, key: dict[str, Any], runs: list[str], resamples: int
) -> dict[str, dict[str, Interval]]:
    return {
        question: {
            uri: _share(
                [
                    point
                    for other in range(len(runs))
                    if other != index
                    for point in _points(votes, key, question, index, other)
                ],
                resamples,
            )
            for index, uri in enumerate(runs)
        }
        for question in QUESTIONS
    }


def _points(
    votes: Votes, key: dict[str, Any], question: str, run: int, other: int
) -> list[tuple[str, str, float]]:
    """(rater, row, 1 where `run` was preferred to `other`, 0 where not, 0.5 for the same)."""
    points = []
    for (rater, trial, asked), choice in votes.items():
        sides = key["trials"][trial]
        if asked == question and {sides["first"], sides["second"]} == {run, other}:
            won = 0.5 if choice == "same" else float(sides[choice] == run)
            points.append((rater, str(sides["record_id"]), won))
    return points


def _share(points: list[tuple[str, str, float]], resamples: int) -> Interval:
    values = np.array([point for _, _, point in points])
    return mean_interval(
        values, ([rater for rater, _, _ in points], [row for _, row, _ in points]), resamples
    )


def _agreement(votes: Votes, question: str) -> float | None:
    units: dict[str, list[str]] = {}
    for (_, trial, asked), choice in votes.items():
        if asked == question:
            units.setdefault(trial, []).append(choice)
    return krippendorff_alpha(list(units.values()))


def _percent(share: Interval) -> str:
    return f"{100 * share.mean:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]" if share.count else "–"


def _json(storage: Storage, uri: str) -> dict[str, Any]:
    try:
        value = json.loads(storage.read_bytes(uri, max_bytes=_MAX_BYTES))
    except ObjectNotFound:
        raise UsageError(f"{uri}: not found") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{uri}: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{uri}: holds no JSON object")
    return value
