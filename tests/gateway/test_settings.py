"""Settings from the environment: each flag of `gateway serve` may stand there."""

from __future__ import annotations

import pytest

from gateway.settings import Settings


@pytest.mark.parametrize("name", ["WINNOW_RAW_ROOT", "WINNOW_RAW_ROOTS"])
def test_raw_roots_come_from_the_environment_by_the_flags_name_and_by_their_own(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "/raw,s3://bucket/raw/")
    assert Settings().raw_root_uris == ("/raw", "s3://bucket/raw")
    assert Settings(raw_roots=("/other",)).raw_root_uris == ("/other",)


def test_a_variable_without_the_prefix_is_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAW_ROOTS", "/raw")
    assert Settings().raw_roots == ()
