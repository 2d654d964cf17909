"""docs/checks.md is what the table of checks and the default rules say."""

from __future__ import annotations

from pathlib import Path

from monitor.checks import HEALTH_TABLE
from monitor.cli.checks import PAGE, generate, main
from monitor.policy import DEFAULT_RULES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current() -> None:
    assert (DOCS / PAGE).read_text(encoding="utf-8") == generate(), "run: python -m monitor.cli.checks"


def test_writing_it_gives_the_same_page(tmp_path: Path) -> None:
    main(str(tmp_path))
    assert (tmp_path / PAGE).read_text(encoding="utf-8") == generate()


def test_each_check_has_an_entry_that_says_what_is_told_by_default() -> None:
    page = generate()
    for check in HEALTH_TABLE:
        entry = page.split(f"### `{check.id}`\n")[1].split("###")[0]
        rule = DEFAULT_RULES.get(check.id)
        assert (f"by default: {rule.severity}" if rule else "by default: silent") in entry
