"""How a command is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kit.errors import run_command


def complaint(capsys: pytest.CaptureFixture[str], command: Callable[[], int | None], code: int = 2) -> str:
    """The one line on stderr of a command that prints nothing else and exits with this code."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run_command(command)
    output, said = capsys.readouterr()
    assert caught.value.code == code
    assert output == ""
    assert len(said.splitlines()) == 1, said
    return said
