"""Features of richer kinds: which views stand for them in a layout, and what these are in a file's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec import structs

from monitor.cells import with_cells_of
from monitor.columns import NoValue
from monitor.event_time import TimeUnit
from monitor.features import CategoryFeature, Feature, NumberFeature, source_of
from monitor.files import Columns
from monitor.reference_build.gather import append
from monitor.reference_build.numbers import number_feature
from monitor.reference_build.rows import event_times_ms, source_values
from monitor.views import TOKEN_BITS, category_view, number_view, token_hash, tokens, vocabulary_bytes

MAX_TOKENS = 5_000
MIN_TEXTS = 5
"""A token that fewer texts have is not in the vocabulary: it may be a person's name."""
MAX_EDGE_SHARE = 0.005
"""Of all tokens, at most this share is in exactly as many texts as it takes to be known. By so much, and no more, is the share of unseen
tokens expected to be higher among new texts of the same sort than among these (Good, Biometrika 40 (1953), 237: leave one out)."""


def filled(
    views: Sequence[Feature], read: Callable[[], Iterator[Columns]], folder: Path, time_unit: TimeUnit
) -> tuple[list[Feature], list[str]]:
    """Return views with their edges and dictionaries, and the names of those that no row has a value of.

    One pass over the rows; a second one where a text is among them, since its unseen tokens are known only then.
    """
    texts = [view for view in views if view.view == "unseen_ratio"]
    found, texts_by_token = _pass([view for view in views if view.view != "unseen_ratio"], read, folder, time_unit, texts)
    if texts:
        known = [structs.replace(text, vocabulary=_vocabulary(texts_by_token[source_of(text)])) for text in texts]
        found += _pass(known, read, folder, time_unit, ())[0]
    return [view for view in found if _has_rows(view)], [view.name for view in found if not _has_rows(view)]


def _has_rows(view: Feature) -> bool:
    return bool(view.edges) if isinstance(view, NumberFeature) else view.view is None or bool(view.values)


_Counts = npt.NDArray[np.uint32]


def _pass(
    views: Sequence[Feature],
    read: Callable[[], Iterator[Columns]],
    folder: Path,
    time_unit: TimeUnit,
    texts: Sequence[Feature],
) -> tuple[list[Feature], dict[str, _Counts]]:
    """Return views filled, and of the sources of `texts` the rows by token hash."""
    spools = {view.name: folder / f"view-{i}" for i, view in enumerate(views)}
    for spool in spools.values():
        spool.unlink(missing_ok=True)
    dictionaries: dict[str, Counter[object]] = {view.name: Counter() for view in views if isinstance(view, CategoryFeature)}
    by_token = {source_of(text): np.zeros(1 << TOKEN_BITS, np.uint32) for text in texts}
    for batch in read():
        values = {name: source_values(batch, name) for name in {source_of(view) for view in (*views, *texts)}}
        for view in views:
            of = values[source_of(view)]
            if isinstance(view, NumberFeature):
                column = number_view(view, of, partial(event_times_ms, batch, time_unit))
                append(spools[view.name], column[np.isfinite(column)])
            elif view.view is not None:
                dictionaries[view.name].update(category_view(view, of))
        for name, rows in by_token.items():
            _count_tokens(rows, values[name])
    return [_with_rows(view, spools[view.name], dictionaries.get(view.name, Counter())) for view in views], by_token


def _with_rows(view: Feature, spool: Path, dictionary: Counter[object]) -> Feature:
    if isinstance(view, CategoryFeature):
        counts = {str(value): n for value, n in dictionary.items() if value is not None and not isinstance(value, NoValue)}
        return structs.replace(view, values=tuple(sorted(counts, key=lambda value: (-counts[value], value))))
    if not spool.exists() or not spool.stat().st_size:
        return view
    return with_cells_of(view, number_feature(view.name, spool))


def _count_tokens(rows: _Counts, values: Sequence[object]) -> None:
    found = [h for value in values if isinstance(value, str) for h in set(map(token_hash, tokens(value)))]
    hashes, counts = np.unique(np.array(found, np.int64), return_counts=True)
    rows[hashes] += counts.astype(np.uint32)


def _vocabulary(rows: _Counts) -> bytes:
    """Return the tokens that at least k texts have: the smallest k ≥ `MIN_TEXTS` that `MAX_TOKENS` and `MAX_EDGE_SHARE` allow."""
    texts, n_tokens = np.unique(rows[rows > 0].astype(np.int64), return_counts=True)
    at_least = np.cumsum(n_tokens[::-1])[::-1]
    many = texts[at_least > MAX_TOKENS]
    k = max(MIN_TEXTS, int(many[-1]) + 1 if len(many) else 0)
    edge = dict(zip(texts.tolist(), (texts * n_tokens).tolist(), strict=True))
    limit = MAX_EDGE_SHARE * sum(edge.values())
    while edge.get(k, 0) > limit:
        k += 1
    return vocabulary_bytes(np.flatnonzero(rows >= k).tolist())
