"""What is done while Ray begins counts as if it were done before."""

from __future__ import annotations

import threading

import pytest

from kit.errors import UserError
from tournament import execute


def test_ray_begins_in_the_main_thread_while_the_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    met = threading.Barrier(2, timeout=20)
    threads = {}

    def here(name: str) -> None:
        threads[name] = threading.current_thread()
        met.wait()

    monkeypatch.setattr(execute, "begin", lambda: here("ray"))
    execute.begin_beside(lambda: here("work"))
    assert threads["ray"] is threading.main_thread()
    assert threads["work"] is not threading.main_thread()


def test_trouble_in_the_work_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def trouble() -> None:
        raise UserError("leak")

    monkeypatch.setattr(execute, "begin", lambda: None)
    with pytest.raises(UserError, match="leak"):
        execute.begin_beside(trouble)


def test_no_ray_is_told_though_the_work_went_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def trouble() -> None:
        raise UserError("no Ray")

    monkeypatch.setattr(execute, "begin", trouble)
    with pytest.raises(UserError, match="no Ray"):
        execute.begin_beside(lambda: None)
