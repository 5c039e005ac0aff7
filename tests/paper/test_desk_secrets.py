"""A desk's keys and tokens are in nothing that it writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from killed import LOG, Drivers
from stands import JOURNAL, Stand, standing

from paper.chain import KEY as JOURNAL_KEY
from paper.config import BOARD_TOKEN
from paper.exchange.faults import Fault
from paper.exchange.run import KEY, SECRET
from paper.run import TOKEN
from paper.verify import verify

BARS = 6
WRONG = "a-t0ken-that-the-endpoint-refuses"
SECRETS = {
    KEY: "PKT0PS3CRETKEYID9XYZ",
    SECRET: "s3cr3tOfTheBrokerAbCdEf0123456789",
    TOKEN: "callers-t0ken-of-32-characters-ab",  # the endpoint's
    JOURNAL_KEY: "j0urnalKeyThatSignsEverything42",
    BOARD_TOKEN: "b0ardTokenThatKillsAndResets4242",
}
ANSWERS = ("504_after", "502_html", "drop_after", "hang", "reject_buying_power")
FAULTS = [
    *(Fault(route="POST /v2/orders", kind=kind, nth=2 + 2 * n, seconds=1.5) for n, kind in enumerate(ANSWERS)),
    *(Fault(route="GET /v2/*", kind=kind, nth=20 + 9 * n) for n, kind in enumerate(ANSWERS[1:3])),
    Fault(stream="drop", nth=3),
    Fault(stream="unknown_enum", nth=5),
]


@pytest.fixture
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("ensemble")) as stand:
        yield stand


def test_no_secret_is_written_anywhere(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a replay at DEBUG in which much goes wrong, and one whose endpoint refuses its token."""
    for name in (KEY, SECRET):
        monkeypatch.setenv(name, SECRETS[name])
    drivers = Drivers(SECRETS)
    with stand.market(bars=BARS, faults=FAULTS) as exchange:
        words = stand.words(exchange, "broker.timeout_s=1")
        assert drivers.live(tmp_path, words) == 0, (tmp_path / LOG).read_text()
    drivers.close()
    drivers = Drivers({**SECRETS, TOKEN: WRONG})
    with stand.market(bars=BARS) as exchange:
        (tmp_path / "refused").mkdir()
        assert drivers.live(tmp_path / "refused", stand.words(exchange)) == 1
    drivers.close()
    assert verify(tmp_path / JOURNAL, [SECRETS[JOURNAL_KEY].encode()]).ok
    log = (tmp_path / LOG).read_text()
    for proof in ("DEBUG", "looking it up", "asking again", "connecting again"):
        assert proof in log, "it did not go wrong enough"
    assert "401" in (tmp_path / "refused" / LOG).read_text()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {JOURNAL, LOG} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        for name, secret in {**SECRETS, "a wrong token": WRONG}.items():
            assert secret.encode() not in content, f"{name} is in {file.name}"
