from __future__ import annotations

from pathlib import Path

from fuzz import Fuzz


def test_damage_is_noticed_and_every_error_is_msats_own(tmp_path: Path) -> None:
    fuzz = Fuzz(tmp_path)
    fuzz.run(3)
    assert fuzz.clean, fuzz.report()
    assert len(fuzz.tried) == 11
