import logging

import pytest

from kit.log import HIDDEN, redact, set_up_logging


def test_values_of_secret_variables_never_leave(monkeypatch):
    monkeypatch.setenv("APCA_API_SECRET_KEY", "zQ9-very-private")
    assert redact("sent zQ9-very-private to the broker") == f"sent {HIDDEN} to the broker"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.def.ghi",
        "{'APCA-API-SECRET-KEY': 'abc.def.ghi'}",
        "api_key=abc.def.ghi&x=1",
        "https://user:abc.def.ghi@host/path",
        '"wandb_api_key": "abc.def.ghi"',
        "token=abc.def.ghi",
    ],
)
def test_headers_and_credentials_are_hidden(text):
    assert "abc.def.ghi" not in redact(text)
    assert HIDDEN in redact(text)


def test_ordinary_lines_stay_as_they_are():
    line = "12 symbols, 5,040 bars, keyed by symbol; monkey business: https://host:8080/path"
    assert redact(line) == line


def test_a_short_value_does_not_hide_ordinary_words(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "on")
    assert redact("based on bars") == "based on bars"


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


def test_log_lines_arguments_and_tracebacks_are_redacted(monkeypatch, capsys, root_logger):
    secret = "tok-123456789"
    monkeypatch.setenv("MY_TOKEN", secret)
    set_up_logging()
    logging.getLogger("x").warning("with %s", secret)
    try:
        raise RuntimeError(secret)
    except RuntimeError:
        logging.getLogger("x").exception("failed")
    written = capsys.readouterr().err
    assert f"with {HIDDEN}" in written
    assert f"RuntimeError: {HIDDEN}" in written
    assert secret not in written


def test_setting_up_twice_logs_a_line_once(capsys, root_logger):
    set_up_logging()
    set_up_logging()
    logging.getLogger("x").warning("once")
    assert capsys.readouterr().err.count("once") == 1
