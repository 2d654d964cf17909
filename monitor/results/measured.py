"""Measurements as a result holds them, by check, and read back: what a backtest judges anew."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from msgspec.structs import replace

from monitor.decision.shape import CHECK, TESTS
from monitor.findings import CountTest, Measurement, ScaleTest


class CountsResult(msgspec.Struct, kw_only=True):
    """Rows that exact tests count, a number per feature; lists as in the measurement that it stands in."""

    test: Literal["excess", "extremes"]
    """Fisher's exact test, one-sided; or the bound for values outside the reference's range."""
    bad: list[int | None]
    """Of the window; null where one side has no rows."""
    bad_ref: list[int | None]
    parts: int | list[int]
    """So many cells or sides were looked at."""


class ScaleResult(msgspec.Struct, array_like=True):
    """The tests of a feature over the newest windows, taken as one."""

    scale: int
    """So many windows."""
    reference: list[int]
    """Rows by cell, small cells pooled."""
    window: list[int]
    p_value: float
    """Of all tests, by Cauchy's rule."""
    tests: list[float | None]
    """p of chi_square, location, dispersion; null of those that were not made."""
    phi: list[float | None]
    """Over-dispersion that each was judged with."""


class DistributionResult(msgspec.Struct, kw_only=True):
    """What the decision about a feature's distribution was made from."""

    psi: float
    cells: int
    """Reported cells."""
    provisional: bool
    """φ is not known."""
    scales: list[ScaleResult]
    """Those with enough rows."""


class Measured(msgspec.Struct, kw_only=True):
    """What one check measured: lists of the same length, one entry per feature that it is for; one number where all are the same."""

    features: list[str]
    """Keys in `features`; "": the model as a whole."""
    value: list[float | None]
    """null where it is not finite"""
    n: int | list[int]
    n_ref: int | list[int]
    critical_value: list[float | None] | None
    """What chance alone explains at this n and n_ref; null where no law applies."""
    p_value: list[float | None] | None
    min_n: int | list[int]
    """Fewer rows than this are not enough to say anything."""
    lower_is_worse: bool
    counts: CountsResult | None = None
    """What an exact test counts; null for a check without one."""
    distributions: list[DistributionResult] | None = None
    """Of `drift.distribution`."""


def measured_result(measurements: Iterable[Measurement]) -> dict[str, Measured]:
    """Return measurements of one segment by check."""
    by_check: dict[str, list[Measurement]] = {}
    for one in measurements:
        by_check.setdefault(one.check, []).append(one)
    return {
        check: Measured(
            features=[one.feature for one in of_check],
            value=[one.value if math.isfinite(one.value) else None for one in of_check],
            n=_one_or_all([one.n for one in of_check]),
            n_ref=_one_or_all([one.n_ref for one in of_check]),
            critical_value=_unless_null([one.critical_value for one in of_check]),
            p_value=_unless_null([one.p_value for one in of_check]),
            min_n=_one_or_all([one.min_n for one in of_check]),
            lower_is_worse=of_check[0].lower_is_worse,
            counts=_counts([one.counted for one in of_check]),
            distributions=[_distribution(one) for one in of_check] if check == CHECK else None,
        )
        for check, of_check in by_check.items()
    }


def _counts(tests: Sequence[CountTest | None]) -> CountsResult | None:
    known = [test for test in tests if test is not None]
    if not known:
        return None
    return CountsResult(
        test=known[0].kind,
        bad=[None if test is None else test.bad for test in tests],
        bad_ref=[None if test is None else test.bad_ref for test in tests],
        parts=_one_or_all([known[0].parts if test is None else test.parts for test in tests]),
    )


def _distribution(one: Measurement) -> DistributionResult:
    return DistributionResult(
        psi=one.evidence["psi"],
        cells=one.evidence["cells"],
        provisional=one.is_provisional,
        scales=[
            ScaleResult(
                test.scale,
                test.cells[0].tolist(),
                test.cells[1].tolist(),
                test.p_value,
                [test.tests.get(name) for name in TESTS],
                [test.phi.get(name) for name in TESTS],
            )
            for test in one.scales
        ],
    )


def _one_or_all(numbers: list[int]) -> int | list[int]:
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _unless_null(values: list[float | None]) -> list[float | None] | None:
    return None if all(value is None for value in values) else values


def measurements_of(measured: Mapping[str, Measured], segment: str) -> Iterator[Measurement]:
    """Yield the measurements that a result holds, without the evidence that no decision needs; what was not finite is NaN."""
    for check, of_check in measured.items():
        nulls: list[float | None] = [None] * len(of_check.features)
        counted = list(_counted(of_check, nulls))
        for i, (feature, value, n, n_ref, critical_value, p_value, min_n) in enumerate(
            zip(
                of_check.features,
                of_check.value,
                _all(of_check.n, nulls),
                _all(of_check.n_ref, nulls),
                of_check.critical_value or nulls,
                of_check.p_value or nulls,
                _all(of_check.min_n, nulls),
                strict=True,
            )
        ):
            found = Measurement(
                check,
                feature,
                math.nan if value is None else value,
                n,
                n_ref,
                critical_value,
                p_value,
                min_n,
                of_check.lower_is_worse,
                segment=segment,
                counted=counted[i],
            )
            yield found if of_check.distributions is None else _with_scales(found, of_check.distributions[i])


def _counted(of_check: Measured, nulls: Sequence[object]) -> Iterator[CountTest | None]:
    counts = of_check.counts
    if counts is None:
        yield from (None for _ in nulls)
        return
    rows = zip(
        _all(of_check.n, nulls), _all(of_check.n_ref, nulls), counts.bad, counts.bad_ref, _all(counts.parts, nulls), strict=True
    )
    for n, m, bad, bad_ref, parts in rows:
        yield None if bad is None or bad_ref is None else CountTest(bad, n, bad_ref, m, counts.test, parts)


def _with_scales(found: Measurement, kept: DistributionResult) -> Measurement:
    scales = tuple(
        ScaleTest(
            one.scale,
            (np.array(one.reference, np.int64), np.array(one.window, np.int64)),
            one.p_value,
            {name: p for name, p in zip(TESTS, one.tests, strict=True) if p is not None},
            {name: phi for name, phi in zip(TESTS, one.phi, strict=True) if phi is not None},
        )
        for one in kept.scales
    )
    return replace(found, evidence={"psi": kept.psi, "cells": kept.cells}, scales=scales, is_provisional=kept.provisional)


def _all(numbers: int | list[int], like: Sequence[object]) -> list[int]:
    return [numbers] * len(like) if isinstance(numbers, int) else numbers
