import pytest

from kit.cli import Command
from kit.errors import UserError


def parser():
    command = Command(prog="tool")
    inner = command.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser("run")
    inner.add_argument("target")
    inner.add_argument("settings", nargs="*")
    inner.add_argument("--out")
    return command


@pytest.mark.parametrize(
    "words",
    [
        ["run", "x", "a=1", "b=2", "--out", "y"],
        ["run", "x", "--out", "y", "a=1", "b=2"],
        ["run", "--out", "y", "x", "a=1", "b=2"],
        ["run", "x", "a=1", "--out", "y", "b=2"],
    ],
)
def test_settings_may_stand_anywhere(words):
    options = parser().parse_args(words)
    assert (options.target, options.out, options.settings) == ("x", "y", ["a=1", "b=2"])


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["rum"], "did you mean run?"),
        (["run"], "target"),
        (["run", "x", "--in", "y"], "--in"),
        (["run", "x", "--in=y"], "--in=y"),
        ([], "COMMAND"),
    ],
)
def test_what_is_wrong_is_one_line(words, fragment):
    with pytest.raises(UserError) as error:
        parser().parse_args(words)
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)
