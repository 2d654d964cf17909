"""Policies as they are written: one YAML file each → `Policy`. All problems are told at once, with line, path and what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from monitor.config.file import problems, read_yaml
from monitor.config.rule_text import MAX_OVER, Short, check_id, parse_breaches, parse_false_alarms, parse_rule, parse_window
from monitor.config.values import Node, duration_ms
from monitor.errors import ConfigError, InputError
from monitor.event_time import text_ms
from monitor.events import NAME_PATTERN
from monitor.policy import DEFAULT_POLICY, DEFAULT_RULES, Policy
from monitor.rules import DAY_MINUTES, Mute, Rule, Severity

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_ROUTES = 20


def _texts(value: object) -> object:
    """Take a text for a list of one."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("a name, a wildcard such as '*_amount', or a list of these is expected")
    if len(set(texts)) < len(texts):
        raise ValueError("one is listed twice")
    return tuple(texts)


def _parsed(parse: Any) -> Any:
    def check(value: Any) -> Any:
        parse(value)
        return value

    return AfterValidator(check)


def _windows(value: object) -> object:
    if isinstance(value, int):
        raise ValueError(
            f"{value} is no kind of window; write such as 1h or 24h/1h; for so many in a row write open_after: {value}"
        )
    for text in (texts := _texts(value)):  # type: ignore[attr-defined]
        parse_window(text)
    return texts


def _route(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._@+-]{1,100}", text):
        raise ValueError(f"{text!r} is no name of a route: 1 to 100 letters, digits or . _ @ + - are allowed")
    return text


def _some(rules: tuple[object, ...]) -> tuple[object, ...]:
    if not rules:
        raise ValueError("at least one rule is needed, such as psi > 0.2")
    return rules


Names = Annotated[tuple[str, ...], BeforeValidator(_texts, json_schema_input_type=str | list[str])]
Windows = Annotated[tuple[str, ...], BeforeValidator(_windows, json_schema_input_type=str | list[str])]
Span = Annotated[int, BeforeValidator(duration_ms, json_schema_input_type=str)]
Count = Annotated[int, Field(ge=1, le=1_000)]
Budget = Annotated[str, _parsed(parse_false_alarms)]
Route = Annotated[str, AfterValidator(_route)]


def _time_of_day(text: str) -> int | None:
    found = re.fullmatch(r"(\d\d?):(\d\d)", text)
    minutes = int(found[1]) * 60 + int(found[2]) if found else DAY_MINUTES + 1
    return minutes if found and int(found[2]) < 60 and minutes <= DAY_MINUTES else None


class MuteFile(Node):
    """When nothing opens an incident: from … to … once, or at hours that come again on days or dates."""

    from_: str | None = Field(None, alias="from", description="ISO 8601 moment, or hour and minute such as 22:00")
    to: str | None = Field(None, description="likewise; an hour at or before `from` is of the next day")
    days: Annotated[tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], Field(max_length=7)] = Field(
        (), description="of the week: mon, tue, wed, thu, fri, sat, sun"
    )
    dates: tuple[str, ...] = Field((), description="of every year, month-day: 12-25")
    timezone: str = Field("UTC", description="IANA name, such as Europe/Berlin")
    reason: str = Field("", max_length=200, description="why")

    @model_validator(mode="after")
    def _valid(self) -> MuteFile:
        self.mute()
        return self

    def mute(self) -> Mute:
        """Return what it says. Raises ValueError."""
        try:
            ZoneInfo(self.timezone)
        except (ValueError, OSError, KeyError) as error:
            raise ValueError(
                f"timezone: {self.timezone!r} is no time zone; write an IANA name such as Europe/Berlin or UTC"
            ) from error
        dates = tuple(_date(text) for text in self.dates)
        if self.from_ is None and self.to is None:
            if not (self.days or dates):
                raise ValueError("give from and to, days or dates")
            return self._recurring(0, DAY_MINUTES, dates)
        if self.from_ is None or self.to is None:
            raise ValueError("give from and to, not one of them")
        start, end = _time_of_day(self.from_), _time_of_day(self.to)
        if start is not None and end is not None:
            return self._recurring(start % DAY_MINUTES, end, dates)
        if self.days or dates:
            raise ValueError("from and to of days or dates are hours such as 22:00")
        try:
            from_ms, to_ms = text_ms(self.from_), text_ms(self.to)
        except InputError:
            raise ValueError(
                f"from {self.from_!r} to {self.to!r}: both are hours such as 22:00, or both ISO 8601 moments such as 2026-12-24T18:00:00Z"
            ) from None
        if to_ms <= from_ms:
            raise ValueError(f"to {self.to} is not after from {self.from_}")
        return Mute(from_ms=from_ms, to_ms=to_ms, reason=self.reason)

    def _recurring(self, start: int, end: int, dates: tuple[tuple[int, int], ...]) -> Mute:
        days = tuple(sorted({DAYS.index(day) for day in self.days}))
        return Mute(days=days, dates=dates, start=start, end=end, zone=self.timezone, reason=self.reason)


_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _date(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d\d)-(\d\d)", text)
    if found is None or not 1 <= int(found[1]) <= 12 or not 1 <= int(found[2]) <= _DAYS_IN_MONTH[int(found[1]) - 1]:
        raise ValueError(f"dates: {text!r} is no date of every year; write month-day such as 12-25")
    return int(found[1]), int(found[2])


class RuleFile(Node):
    """When a check's value is bad, and what follows. What is left out of it is as the default rule of that check has it."""

    when: Annotated[str, _parsed(parse_rule)] | None = Field(
        None, description="in short: psi > 0.2, mean(psi, 6) > 0.1, missing > 5 %, accuracy drop > 5 %"
    )
    check: Annotated[str, _parsed(check_id)] | None = Field(None, description="or its check, with above, below or neither")
    above: float | None = Field(None, allow_inf_nan=False, description="bad above this value")
    below: float | None = Field(None, allow_inf_nan=False, description="bad below this value")
    over: int | None = Field(None, ge=1, le=MAX_OVER, description="the mean of so many windows is judged")
    weighting: Literal["rows", "windows"] | None = Field(
        None,
        description="what each window of a mean counts: its rows, or all alike; performance by rows if left out, all else alike",
    )
    model: Names | None = Field(None, description="names or wildcards; the policy's if left out")
    feature: Names | None = Field(None, description="names or wildcards; all if left out")
    segment: Names | None = Field(None, description="names or wildcards; all rows together if left out")
    window: Windows | None = Field(None, description="kinds of windows: 1h, 24h/1h; all if left out")
    severity: Severity | None = Field(None, description="notice, warning, critical")
    levels: dict[Severity, Annotated[float, Field(allow_inf_nan=False)]] | None = Field(
        None, description="severity by the value above which it holds, over `severity`; none if only `severity` is given"
    )
    floor: float | None = Field(None, allow_inf_nan=False, description="a smaller effect is never bad, whatever chance says")
    false_alarms: Budget | None = Field(None, description="what is acceptable: 1 per 30d; calibrated checks keep to it")
    open_after: Count | None = Field(None, description="so many bad windows in a row open an incident")
    breaches: Annotated[str, _parsed(parse_breaches)] | None = Field(None, description="or so many of the last ones: 3 of 5")
    close_after: Count | None = Field(None, description="so many quiet windows in a row close it; as many as open it if left out")
    cooldown: Span | None = Field(None, description="after it closed it does not open again for so long")
    mute: tuple[MuteFile, ...] = Field((), description="when it opens nothing, beside the policy's")
    owner: str | None = Field(None, max_length=100, description="who is responsible; the policy's if left out")
    routes: Annotated[tuple[Route, ...], Field(max_length=MAX_ROUTES)] | None = Field(
        None, description="names of whom to tell; the policy's if left out"
    )
    enabled: bool = Field(True, description="false switches off what it is for")

    @model_validator(mode="after")
    def _valid(self) -> RuleFile:
        if (self.when is None) == (self.check is None):
            raise ValueError("give when, such as psi > 0.2, or check, one of them")
        if self.when is not None and (self.above is not None or self.below is not None or self.over is not None):
            raise ValueError("when says the threshold: leave out above, below and over, or write check in the place of when")
        if self.above is not None and self.below is not None:
            raise ValueError("give above or below, not both")
        if self.open_after is not None and self.breaches is not None:
            raise ValueError("give open_after or breaches, not both")
        if self.levels and self.said.above is None and (self.said.below is not None or self.said.drop or self.said.rise):
            raise ValueError("levels are of values above a threshold; write one rule per severity")
        said = self.said
        limits = (said.above, said.below, said.drop, said.rise)
        if self.enabled and said.check not in DEFAULT_RULES and all(limit is None for limit in limits):
            raise ValueError(f"no rule is in force for {said.check} by default: give above or below")
        return self

    @property
    def said(self) -> Short:
        """Check and threshold. Raises ValueError."""
        if self.when is not None:
            return parse_rule(self.when)
        assert self.check is not None
        return Short(check_id(self.check), self.over or 1, self.above, self.below, None, None)

    def rule(self, policy: PolicyFile, name: str) -> tuple[str, Rule]:
        """Return (check, rule), filled in from its policy and from the default rule of the check."""
        said, known = self.said, DEFAULT_RULES.get(self.said.check, Rule())
        limits = (said.above, said.below, said.drop, said.rise)
        if all(limit is None for limit in limits):
            limits = (known.above, known.below, None, None)
        n, m = parse_breaches(self.breaches) if self.breaches is not None else (self.open_after or known.windows, 0)
        budget = self.false_alarms or policy.false_alarms
        return said.check, Rule(
            above=limits[0],
            below=limits[1],
            drop=limits[2],
            rise=limits[3],
            over=said.over,
            severity=self.severity or known.severity,
            levels=self.levels if self.levels is not None else {} if self.severity is not None else dict(known.levels),
            floor=self.floor,
            windows=n,
            of=m,
            close_after=self.close_after or 0,
            cooldown_ms=self.cooldown or 0,
            models=self.model or policy.model or (),
            features=self.feature or (),
            segments=self.segment or (),
            specs=tuple(map(parse_window, self.window or policy.window or ())),
            false_alarms=parse_false_alarms(budget) if budget else None,
            mutes=tuple(mute.mute() for mute in (*policy.mute, *self.mute)),
            owner=self.owner or policy.owner or "",
            routes=self.routes if self.routes is not None else policy.routes,
            enabled=self.enabled,
            policy=name,
            weighting=self.weighting or "",
        )


def _short(value: object) -> object:
    if not isinstance(value, str | dict | RuleFile):
        raise ValueError("a rule such as psi > 0.2, or a mapping is expected")
    return {"when": value} if isinstance(value, str) else value


class PolicyFile(Node):
    """A policy: rules, when they apply, and who is told."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] | None = Field(
        None, description="the file's, without its ending, if left out"
    )
    description: str = Field("", description="what it is for")
    effective_from: str | None = Field(None, description="event time from which it applies, ISO 8601; always if left out")
    model: Names | None = Field(None, description="names or wildcards of models; all if left out")
    window: Windows | None = Field(None, description="kinds of windows: 1h, 24h/1h; all if left out")
    owner: str | None = Field(None, max_length=100, description="who is responsible")
    routes: Annotated[tuple[Route, ...], Field(max_length=MAX_ROUTES)] = Field((), description="names of whom to tell")
    false_alarms: Budget | None = Field(None, description="what is acceptable: 1 per 30d")
    mute: tuple[MuteFile, ...] = Field((), description="when nothing opens an incident")
    rules: Annotated[
        tuple[Annotated[RuleFile, BeforeValidator(_short, json_schema_input_type=str | RuleFile)], ...], AfterValidator(_some)
    ] = Field(json_schema_extra={"minItems": 1}, description="short rules such as psi > 0.2, or mappings")

    @model_validator(mode="after")
    def _valid(self) -> PolicyFile:
        if self.name == DEFAULT_POLICY:
            raise ValueError(f"name: {DEFAULT_POLICY} is what the rules of monitor.yaml are called; give another name")
        if self.effective_from is not None:
            try:
                text_ms(self.effective_from)
            except InputError as error:
                raise ValueError(f"effective_from: {error}") from None
        return self

    def policy(self, name: str) -> Policy:
        """Return what it says, under its own name or this one."""
        name = self.name or name
        return Policy(
            name=name,
            rules=tuple(rule.rule(self, name) for rule in self.rules),
            effective_from_ms=text_ms(self.effective_from) if self.effective_from is not None else 0,
            false_alarms=parse_false_alarms(self.false_alarms) if self.false_alarms else None,
        )


class ReadPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy file, read. document: its YAML, which knows the lines. content: its keys and values."""

    path: Path
    policy: Policy
    document: Any
    content: dict[str, Any]


def read_policy(path: Path) -> ReadPolicy:
    """Read a policy file. Raises ConfigError with every problem."""
    document, content = read_yaml(path, example="`rules: [psi > 0.2]`", times_as_text=True)
    try:
        policy = PolicyFile.model_validate(content).policy(path.stem)
    except ValidationError as error:
        raise ConfigError(list(problems(path, document, error, PolicyFile))) from error
    if not re.fullmatch(NAME_PATTERN, policy.name):
        raise ConfigError(
            f"{path}:1: name: {policy.name!r}, from the file's name, has other characters than letters, digits, . _ -"
        )
    return ReadPolicy(path=path, policy=policy, document=document, content=content | {"name": policy.name})


def policy_files(paths: Iterable[Path]) -> list[Path]:
    """Return files, of files and folders (*.yaml and *.yml of it). Raises ConfigError."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        found += sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
    return found


def read_policies(paths: Iterable[Path]) -> list[ReadPolicy]:
    """Read policy files, and folders of them. Raises ConfigError with every problem of all of them."""
    found: list[ReadPolicy] = []
    wrong: list[str] = []
    for path in policy_files(paths):
        try:
            read = read_policy(path)
        except ConfigError as error:
            wrong += error.problems
            continue
        twin = next((other for other in found if other.policy.key == read.policy.key), None)
        if twin is not None:
            wrong.append(
                f"{path}:1: name: {read.policy.name} is the name of {twin.path} too; give another name, or effective_from"
            )
        found.append(read)
    if wrong:
        raise ConfigError(wrong)
    return found


def to_record(read: ReadPolicy, effective_from: str | None) -> tuple[bytes, bytes, Policy]:
    """Return (key, value, policy) of the record on the policies topic: the file as JSON, with its name and event time in it."""
    content = read.content | ({"effective_from": effective_from} if effective_from is not None else {})
    policy = PolicyFile.model_validate(content).policy(read.policy.name)
    return policy.key, json.dumps(content, sort_keys=True, ensure_ascii=False).encode(), policy


def from_record(value: bytes) -> Policy:
    """Return the policy of a record. Raises InputError."""
    try:
        given = PolicyFile.model_validate_json(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"not a policy: {where}: {first['msg']}") from error
    if given.name is None:
        raise InputError("not a policy: name: is required")
    return given.policy(given.name)
