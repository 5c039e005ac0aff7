"""What tests of the commands share."""

from __future__ import annotations

import pytest
from small import here, runner


@pytest.fixture
def in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run here, and without the page, which takes longest, where it is not asked about."""
    here(monkeypatch, runner())
    if "page" not in request.fixturenames:
        monkeypatch.setattr("tournament.run.page.write", lambda *_: None)


@pytest.fixture
def page() -> None:
    """For tests that read it."""
