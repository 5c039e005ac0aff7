"""The desk's page in a browser: it follows the desk, says when it hears nothing, and its buttons do what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.request import urlopen

import pytest
from browser import needs_chromium
from chrome import Chrome, chrome
from views import HOSTILE, START, a_view

from paper.watch import board as module
from paper.watch.alerts import AlertConfig, Alerts
from paper.watch.board import Board
from paper.watch.metrics import Metrics
from paper.watch.page import PAGE
from paper.watch.view import View

TOKEN = "board-t0ken-that-is-long"
EMPTY = View("Demo", "0123456789ab", "local exchange", "ACTIVE", "", None, "starts", START)


def of(id: str) -> str:
    return f"document.getElementById('{id}')"


def text(id: str) -> str:
    return f"{of(id)}.innerText"


class Desk:
    def __init__(self) -> None:
        self.wishes: list[tuple[str, str]] = []
        metrics = Metrics(Alerts(AlertConfig(), lambda: START))
        self.board = Board(
            "127.0.0.1",
            0,
            TOKEN,
            lambda reason: self.wishes.append(("kill", reason)),
            lambda reason: self.wishes.append(("reset", reason)),
            metrics,
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chrome() as made:
        yield made


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.delenv("PODRACER_WEBHOOK_URL", raising=False)
    monkeypatch.setattr(module, "BEAT", 0.5)
    made = Desk()
    yield made
    made.board.close()


@pytest.fixture
def page(desk: Desk, browser: Chrome) -> Chrome:
    """The page of a desk that trades, at a telephone's width."""
    browser.complaints.clear()
    desk.board.show(a_view())
    browser.open(desk.board.url, width=360)
    browser.until("document.documentElement.dataset.ready")
    browser.until(f"{of('stale')}.hidden")
    return browser


def well(page: Chrome) -> None:
    """Nothing was complained of, and the script met no error."""
    assert page.ask("document.documentElement.dataset.error ?? ''") == ""
    assert page.complaints == []


def test_the_page_names_no_address_and_loads_nothing() -> None:
    assert set(re.findall(r"https?://[^\s\"'`]+", PAGE)) == {"http://www.w3.org/2000/svg"}  # a name, never fetched
    assert not re.search(r"(?i)\bsrc\s*=|@import|url\(|innerHTML|insertAdjacentHTML|document\.write|eval\(", PAGE)
    assert re.findall(r'href="([^"]*)"', PAGE) == ["data:,"]
    assert PAGE.count("<script>") == PAGE.count("</script>") == PAGE.count("<style>") == 1


@needs_chromium
@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_everything_fits_and_is_readable(desk: Desk, browser: Chrome, width: int, dark: bool) -> None:
    browser.complaints.clear()
    many = [f"SYMBOL{i}" for i in range(30)]
    desk.board.show(a_view(bars=700, state="HALTED", symbols=many))
    browser.open(desk.board.url, width, dark=dark)
    browser.until("document.documentElement.dataset.ready")
    assert browser.ask("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    back = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", back))) < 64) is dark
    texts = "[...document.querySelectorAll('#plot text')].map(node => node.getBoundingClientRect())"
    assert browser.ask(f"{texts}.every(box => box.left >= 0 && box.right <= innerWidth + 1)")
    assert browser.ask(f"{of('positions')}.rows.length") == 30
    kill = browser.ask(f"{of('kill')}.getBoundingClientRect().toJSON()")
    assert kill["right"] <= width and kill["height"] >= 36  # a thumb finds it
    well(browser)


@needs_chromium
def test_the_page_shows_what_the_desk_shows(desk: Desk, page: Chrome) -> None:
    assert page.ask("document.title") == "ACTIVE · Demo"
    assert page.ask(text("about")) == (
        "Ensemble 0123456789ab · local exchange · bar of 30 Apr 21:00 UTC · waits for the close"
    )
    assert "drawdown\n16.0 % of 15.0 %" in page.ask(text("limits")).replace("\u00a0", " ")
    assert "8 of 60 orders" in page.ask(text("limits")).replace("\u00a0", " ")
    assert page.ask("document.querySelectorAll('#limits .over').length") == 1
    assert "halt · 30 Apr 21:00" in page.ask(text("alerts")) and "3 times" in page.ask(text("alerts"))
    assert page.ask("document.querySelectorAll('#plot path.line').length") == 3
    assert page.ask("document.querySelector('#plot .band').getAttribute('d').length") > 1000
    rows = page.ask("[...document.querySelectorAll('#votes tr')].map(row => row.innerText)")
    assert len(rows) == 8 and all(row.count("%") == 3 for row in rows)
    assert page.ask(f"{of('why')}.hidden && {of('reset')}.hidden")
    well(page)


@needs_chromium
def test_a_new_view_changes_the_page_by_itself(desk: Desk, page: Chrome) -> None:
    view = a_view(bars=121, state="HALTED")
    desk.board.show(replace(view, positions=view.positions[:2], phase="halted"))
    page.until("document.title === 'HALTED · Demo'")
    assert page.ask(f"{of('positions')}.rows.length") == 2
    assert page.ask(text("why")) == "HALTED: the drawdown limit was passed"
    assert not page.ask(f"{of('reset')}.hidden")
    well(page)


@needs_chromium
def test_the_chart_tells_its_values_under_the_pointer_and_keeps_them_when_a_bar_comes(desk: Desk, page: Chrome) -> None:
    box = page.ask("document.querySelector('#plot svg').getBoundingClientRect().toJSON()")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=box["left"] + 1, y=box["top"] + 20)
    tip = page.until("document.querySelector('#plot .tip:not([hidden])')?.innerText")
    assert tip.startswith("2 Jan 21:00 UTC") and "Equal weight" in tip and "Its range" in tip
    desk.board.show(a_view(bars=130))
    page.until(f"{text('about')}.includes('10 May')")
    assert page.ask("document.querySelector('#plot .tip:not([hidden])').innerText").startswith("2 Jan 21:00 UTC")
    well(page)


@needs_chromium
def test_a_desk_that_has_nothing_yet_is_shown_too(desk: Desk, browser: Chrome) -> None:
    browser.complaints.clear()
    desk.board.show(EMPTY)
    browser.open(desk.board.url, 360)
    browser.until("document.documentElement.dataset.ready")
    assert "no bar yet" in browser.ask(text("about"))
    assert browser.ask(text("plot")) == "It begins with the first bar."
    for bars in (1, 2):
        desk.board.show(a_view(bars=bars))
        browser.until(f"{text('about')}.includes('{bars + 1} Jan')")
        assert "NaN" not in browser.ask("document.body.outerHTML.replace(/<script[^]*?<\\/script>/, '')")
    well(browser)


@needs_chromium
def test_hostile_text_stays_text(desk: Desk, browser: Chrome) -> None:
    browser.complaints.clear()
    desk.board.show(a_view(text=HOSTILE, state="REDUCING"))
    browser.open(desk.board.url, 360)
    browser.until("document.documentElement.dataset.ready")
    assert browser.ask("document.title") == "REDUCING · Demo" + HOSTILE
    assert browser.ask("document.querySelectorAll('script, img').length") == 1  # the page's own script
    assert browser.ask("document.querySelector('#positions th').textContent").endswith(HOSTILE)
    assert browser.ask("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    well(browser)


def press(page: Chrome, token: str, reason: str) -> None:
    """As a person does it: into the open dialog."""
    for id, value in (("reason", reason), ("token", token)):
        page.ask(f"{of(id)}.value = {json.dumps(value)}")
    page.ask(f"{of('do')}.click()")


@needs_chromium
def test_the_kill_button_asks_first_and_then_kills(desk: Desk, page: Chrome) -> None:
    page.ask(f"{of('kill')}.click()")
    assert page.ask(f"{of('ask')}.open") and desk.wishes == []
    page.ask(f"{of('do')}.click()")  # without a token nothing goes out
    assert page.ask(f"{of('ask')}.open") and desk.wishes == []
    press(page, TOKEN, "it trades nonsense")
    page.until(f"!{of('ask')}.open")
    assert desk.wishes == [("kill", "it trades nonsense")]
    page.until(f"{text('said')}.startsWith('Kill was passed on')")
    page.until(f"{of('token')}.value + {of('reason')}.value === ''")  # when the dialog has closed
    kept = page.ask("[localStorage.length, sessionStorage.length, document.cookie]")
    assert kept == [0, 0, ""] and TOKEN not in page.ask("document.documentElement.outerHTML")
    well(page)


@needs_chromium
@pytest.mark.parametrize("token", ["not-the-token-at-all", "tökén"])
def test_a_wrong_token_is_told_and_nothing_happens(desk: Desk, page: Chrome, token: str) -> None:
    page.ask(f"{of('kill')}.click()")
    press(page, token, "")
    page.until(f"!{of('refused')}.hidden && !{of('do')}.disabled")
    assert "the token is not right" in page.ask(text("refused")).lower()
    assert desk.wishes == [] and page.ask(f"{of('ask')}.open")
    press(page, TOKEN, "")  # and the right one does
    page.until(f"!{of('ask')}.open")
    assert desk.wishes == [("kill", "no reason was given")]


@needs_chromium
def test_a_reset_needs_a_reason(desk: Desk, page: Chrome) -> None:
    desk.board.show(a_view(state="HALTED"))
    page.until(f"!{of('reset')}.hidden")
    page.ask(f"{of('reset')}.click()")
    press(page, TOKEN, "")
    assert page.ask(f"{of('ask')}.open && !{of('reason')}.checkValidity()") and desk.wishes == []
    press(page, TOKEN, "the feed was mended")
    page.until(f"!{of('ask')}.open")
    assert desk.wishes == [("reset", "the feed was mended")]
    well(page)


@needs_chromium
def test_a_desk_that_falls_silent_is_told_of(desk: Desk, page: Chrome) -> None:
    desk.board.silence = 0.0
    page.until(f"!{of('stale')}.hidden")
    assert "the desk says nothing" in page.ask(text("stale"))
    desk.board.silence = 60.0
    page.until(f"{of('stale')}.hidden")
    well(page)


@needs_chromium
def test_a_board_that_dies_is_told_of_and_found_again(
    desk: Desk, page: Chrome, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.board.close()
    page.until(f"!{of('stale')}.hidden")
    assert re.match(r"No news since \d+ \w+ \d\d:\d\d:\d\d UTC \(\d+ s\)\. Trying again\.", page.ask(text("stale")))
    assert page.ask("document.documentElement.classList.contains('stale')")
    metrics = Metrics(Alerts(AlertConfig(), lambda: START))
    again = Board("127.0.0.1", desk.board.port, TOKEN, print, print, metrics)
    again.show(a_view(state="REDUCING"))
    page.until(f"{of('stale')}.hidden && document.title === 'REDUCING · Demo'")
    again.close()


@needs_chromium
def test_the_browser_runs_nothing_but_the_page_s_own_script(desk: Desk, page: Chrome) -> None:
    with urlopen(desk.board.url) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "'sha256-" in policy
    page.ask("document.body.append(Object.assign(document.createElement('script'), { textContent: 'owned = 1' }))")
    assert page.until("document.documentElement.dataset.error").startswith("forbidden: ")
    assert page.ask("typeof owned") == "undefined"
