from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitor.errors import ConfigError
from monitor.runtime.folder import claim


def test_a_folder_belongs_to_one_worker_at_a_time(tmp_path: Path) -> None:
    lock = claim(tmp_path / "worker-0")
    with pytest.raises(ConfigError, match="is in use by another worker"):
        claim(tmp_path / "worker-0")
    claim(tmp_path / "worker-1")
    os.close(lock)
    claim(tmp_path / "worker-0")


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written to"):
        claim(tmp_path / "file" / "worker-0")
