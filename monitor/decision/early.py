"""Alarms inside an open window: which of its values came so often by now that no end of the window can explain it.

What is compared is the number of rows so far with the number that the **whole** window may hold, by the reference; so a test knows
nothing of when in a window they come, and a daily cycle that the reference has, night traffic of its own kind included, is no alarm.
Each count has an e-process: a supermartingale under that hypothesis, of mean at most 1, so that it ever exceeds 1/α in at most α of the
quiet windows, however often one looks (Ville 1939). It only sees severe breaks: half a window of anything usual is not too much of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special  # type: ignore[import-untyped]  # it has no stubs

from monitor.chance.calibration import MIN_ROWS
from monitor.columns import Float, Int, Special
from monitor.decision.probabilities import benjamini_hochberg
from monitor.decision.scales import Plan, earlier_of, plan_of
from monitor.decision.shape import CHECK, UNKNOWN_PHI, design_effects
from monitor.decision.tails import CHECK as TAILS
from monitor.decision.tails import tail_spans
from monitor.features import NumberFeature
from monitor.findings import ClosedWindow, reference_segment
from monitor.layout import Layout, Spans
from monitor.policy import RuleSet
from monitor.profiles import Profile
from monitor.rules import FalseAlarms, Rule
from monitor.windows import WindowSpec

SPENT = 0.1
"""Of the budget, out of what the end of a window keeps as a reserve: Ville's bound needs none."""
RATES = np.array([2.0, 4.0, 16.0, 64.0, 256.0])
"""So many times what a window may hold: the alternatives, each with the same weight."""
REFERENCE_ALPHA = 1e-4
"""A share of the reference is taken as high as it may be but for this chance, by the rows that it was counted on."""
_LARGEST = 600.0

SPECIAL_CHECKS: Mapping[str, tuple[Special, Special]] = {
    "health.missing": (Special.MISSING, Special.ABSENT),
    "schema.missing_feature": (Special.ABSENT, Special.ABSENT),
    "health.nan": (Special.NAN, Special.NAN),
    "health.infinite": (Special.POS_INF, Special.NEG_INF),
    "schema.wrong_type": (Special.WRONG_TYPE, Special.WRONG_TYPE),
    "health.never_seen": (Special.NEVER_SEEN, Special.NEVER_SEEN),
}
"""First and last special cell of what they count."""
SHOWN = SPENT * 0.1
"""What chance explains at most so often is published of a look, whether or not it was told: other rules may believe it. It is what a budget
of one false alarm in ten windows spends."""
LOOKED = (*SPECIAL_CHECKS, "health.out_of_range", TAILS, CHECK)
"""Checks that looks into an open window make."""
_OF_NUMBERS = ("health.nan", "health.infinite")
_OF_PRIMARY_VIEWS = ("health.missing", "schema.missing_feature", "schema.wrong_type")
_OF_VALUES = ("health.out_of_range", TAILS, CHECK)
"""Of numbers."""


class Unlikely(NamedTuple):
    """A check of a feature whose count chance hardly explains. p_value: valid at every look. is_known: whether φ is that of the feature."""

    segment: str
    check: str
    feature: str
    p_value: float
    phi: float
    is_known: bool


class Tested(NamedTuple):
    """What a look could find. features: by name in the layout; whether they are numbers, and whether secondary views."""

    model: str
    spec: WindowSpec
    segments: tuple[str, ...]
    features: Mapping[str, tuple[bool, bool]]


class Suspect(NamedTuple):
    """What is believed to be broken: beyond what chance explains within the budget."""

    of: Unlikely
    rule: Rule
    p_limit: float
    hypotheses: int
    budget: FalseAlarms


def log_evidence(bad: Float, limit: Float) -> Float:
    """Return the logarithm of the e-value of counts against at most `limit` rows on average; (…,) each, not above 600.

    Of rows that come one by one, each bad with a chance whose sum over the window is at most `limit`, rate^bad · e^−(rate−1)·limit is at
    most a supermartingale of mean 1, for every rate ≥ 1; so is the mean over `RATES`.

    >>> log_evidence(np.array([0.0, 3.0, 12.0]), np.array([1.0, 1.0, 1.0])).round(2).tolist()
    [-2.48, 0.2, 16.67]
    """
    logs = bad[..., np.newaxis] * np.log(RATES) - limit[..., np.newaxis] * (RATES - 1)
    top = logs.max(axis=-1)
    mean = np.exp(logs - top[..., np.newaxis]).mean(axis=-1)
    return np.asarray(np.minimum(top + np.log(mean), _LARGEST))


def share_limits(rows: Int, m: Int, phi: Float) -> Float:
    """Return the highest share that a count of a reference's m rows may stand for, but for `REFERENCE_ALPHA`; (s,) each.

    >>> share_limits(np.array([0, 100]), np.array([10_000, 10_000]), np.ones(2)).round(5).tolist()
    [0.00092, 0.01427]
    """
    return np.asarray(np.minimum(phi * special.gammaincinv(rows / phi + 1, 1 - REFERENCE_ALPHA) / np.maximum(m, 1), 1.0))


class Sets(NamedTuple):
    """Which cells each hypothesis counts, for one layout. A hypothesis is a check of a feature; its e-value a mean over several sets."""

    checks: tuple[str, ...]
    """(h,)"""
    features: Int
    """(h,) positions"""
    spans: Spans
    """(s,) one per set"""
    hypothesis: Int
    """(s,)"""
    weight: Float
    """(s,) adds up to 1 over the sets of a hypothesis"""


@lru_cache(maxsize=256)
def sets_of(ranked: Profile) -> Sets:
    """Return the sets of the layout of a reference's rows. Cached by identity of the rows."""
    layout, tails, outside = ranked.layout, tail_spans(ranked), ranked.layout.out_of_range.pairs()
    made: list[tuple[str, int, list[tuple[int, int]], float]] = []
    for position, feature in enumerate(layout.features):
        for check, spans in _special_spans(layout, position):
            made.append((check, position, spans, 1.0))
        values = layout.value_slice(position)
        cells = [(cell, cell + 1) for cell in range(values.start, values.stop)]
        if isinstance(feature, NumberFeature):
            ends = tails[position]
            made.append(("health.out_of_range", position, outside[layout.rows[position]], 1.0))
            made.append((TAILS, position, ends, 1.0))
            made.append((CHECK, position, ends, 0.5))
            made.append((CHECK, position, cells, 0.5))
        else:
            made.append((CHECK, position, cells, 1.0))
    keys = list(dict.fromkeys((check, position) for check, position, _, _ in made))
    index = {key: i for i, key in enumerate(keys)}
    flat = [(a, b, index[check, position], share / len(spans)) for check, position, spans, share in made for a, b in spans]
    first, stop, hypothesis, weight = (np.array(column) for column in zip(*flat, strict=True))
    return Sets(tuple(c for c, _ in keys), np.array([p for _, p in keys]), Spans(first, stop), hypothesis, weight)


def _special_spans(layout: Layout, position: int) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    feature = layout.features[position]
    for check in _specials(is_number=isinstance(feature, NumberFeature), is_secondary=feature.is_secondary):
        first, last = SPECIAL_CHECKS[check]
        yield check, [(layout.special_cell(position, first), layout.special_cell(position, last) + 1)]


def _specials(*, is_number: bool, is_secondary: bool) -> Iterator[str]:
    for check in SPECIAL_CHECKS:
        if (check not in _OF_NUMBERS or is_number) and (check not in _OF_PRIMARY_VIEWS or not is_secondary):
            yield check


def checks_of(*, is_number: bool, is_secondary: bool) -> list[str]:
    """Return the checks that a look makes of a feature."""
    return [*_specials(is_number=is_number, is_secondary=is_secondary), *(_OF_VALUES if is_number else (CHECK,))]


@dataclass(frozen=True)
class OpenWindow:
    """A window while it is open. closed: with the rows so far, of the window as a whole; upto_ms: all earlier rows are in it."""

    closed: ClosedWindow
    upto_ms: int

    @property
    def elapsed(self) -> float:
        """Share of the window that is over."""
        window = self.closed.window
        return (self.upto_ms - window.start_ms) / window.size_ms


def alpha(budget: FalseAlarms, spec: WindowSpec) -> float:
    """Return what all looks into one window may spend together."""
    return SPENT * budget.of(spec.step_ms)


def unlikely(window: OpenWindow, rules: RuleSet, history: Sequence[bytes]) -> tuple[Tested, list[Unlikely]]:
    """Return what may be broken by now in the segments that rules are for: what a budget could believe, and not only that of the rules.

    rules: for windows of this kind. history: tallies of the windows before it, newest first: how many rows one may hold.
    """
    closed = window.closed
    spec, layout = closed.window.spec, closed.profile.layout
    features = {f.name: (isinstance(f, NumberFeature), f.is_secondary) for f in layout.features}
    if closed.reference is None or not features:
        return Tested(closed.model, spec, (), features), []
    known = design_effects(closed.reference, closed.window.size_ms)
    names = [feature.name for feature in layout.features]
    sets, phi = sets_of(closed.reference.ranked), np.array([max(1.0, known.get(name, UNKNOWN_PHI)) for name in names])
    tested = tuple(name for name in layout.segments if any(rules.minds_with(check, name) for check in set(sets.checks)))
    highest = shown_p(rules, spec)
    found = []
    for segment in tested:
        p = _p_values(window, layout.segments.index(segment), sets, phi, history)
        for h in np.flatnonzero(p <= highest).tolist():
            at = int(sets.features[h])
            found.append(Unlikely(segment, sets.checks[h], names[at], float(p[h]), float(phi[at]), names[at] in known))
    return Tested(closed.model, spec, tested, features), found


def shown_p(rules: RuleSet, spec: WindowSpec) -> float:
    """Return the highest p that a look shows: `SHOWN`, or all that one of the rules' own budgets spends on a window, if that is more."""
    return max(SHOWN, *(alpha(budget, spec) for budget in rules.budgets))


def believed(found: Sequence[Unlikely], tested: Tested, rules: RuleSet) -> list[Suspect]:
    """Return what is believed to be broken, among all checks, features and segments that were looked at and rules are for.

    found: all whose p may be within a budget of the rules; what is not among them has a higher one.
    """
    p_of = {one[:3]: one for one in found}
    cases: dict[FalseAlarms, list[tuple[Unlikely | None, Rule]]] = {}
    for segment in tested.segments:
        for name, (is_number, is_secondary) in sorted(tested.features.items()):
            for check in checks_of(is_number=is_number, is_secondary=is_secondary):
                rule = rules.rule(check, tested.model, segment, name) if rules.minds_with(check, segment) else None
                if rule is not None and rule.above is not None:
                    case = (p_of.get((segment, check, name)), rule)
                    cases.setdefault(rule.false_alarms or rules.false_alarms, []).append(case)
    suspects = []
    for budget, of_budget in cases.items():
        p_values = np.array([1.0 if one is None else one.p_value for one, _ in of_budget])
        rejected, limit = benjamini_hochberg(p_values, alpha(budget, tested.spec))
        for i in np.flatnonzero(rejected).tolist():
            one, rule = of_budget[i]
            if one is not None:
                suspects.append(Suspect(one, rule, limit, len(of_budget), budget))
    return suspects


def _p_values(window: OpenWindow, segment: int, sets: Sets, phi: Float, history: Sequence[bytes]) -> Float:
    """Return 1/E of each hypothesis, at most 1; (h,)."""
    closed = window.closed
    assert closed.reference is not None
    rows = int(closed.profile.rows[segment])
    if rows < MIN_ROWS:
        return np.ones(len(sets.checks))
    whole = max(rows / window.elapsed, _rows_before(closed, segment, history))
    of = _Ref(closed.reference.profile, closed.reference.ranked, reference_segment(closed, segment), tuple(phi.tolist()))
    limits = (
        _cached_limits(of) if closed.reference.panes is None else _limits(of)
    )  # those of earlier traffic are of one window only
    of_set = phi[sets.features[sets.hypothesis]]
    logs = log_evidence(sets.spans.rows(closed.profile.counts[segment]) / of_set, limits * whole / of_set)
    evidence = np.bincount(sets.hypothesis, sets.weight * np.exp(logs), minlength=len(sets.checks))
    return np.asarray(1 / np.maximum(evidence, 1.0))


def _rows_before(closed: ClosedWindow, segment: int, history: Sequence[bytes]) -> int:
    """Return the most rows of a segment that one of the windows before had."""
    assert closed.reference is not None
    plan: Plan = plan_of(closed.reference.ranked)
    earlier = earlier_of(history, closed.profile.layout.segments[segment], closed.reference, plan)
    return max((int(plan.rows(tallies.cells).max()) for tallies in earlier), default=0)


class _Ref(NamedTuple):
    """Equal where the counts are the same object."""

    profile: Profile
    ranked: Profile
    segment: int
    phi: tuple[float, ...]

    def __hash__(self) -> int:
        return hash((id(self.profile), self.segment, self.phi))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ref) and self.profile is other.profile and self[2:] == other[2:]


def _limits(of: _Ref) -> Float:
    """Return the highest share of each set, (s,): of rows of a value where values are counted, of all rows else."""
    sets, counts, layout = sets_of(of.ranked), of.profile.counts[of.segment], of.profile.layout
    values = layout.values.rows(counts)
    is_special = np.array([check in SPECIAL_CHECKS for check in sets.checks])
    m = np.where(is_special, int(of.profile.rows[of.segment]), values[sets.features])[sets.hypothesis]
    phi = np.array(of.phi)[sets.features[sets.hypothesis]]
    return share_limits(sets.spans.rows(counts), m, phi)


_cached_limits = lru_cache(maxsize=256)(_limits)
