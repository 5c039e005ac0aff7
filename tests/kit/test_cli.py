import pytest

from kit.cli import Command, examples_of, parser_of
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


def test_a_command_shows_its_own_examples_whole():
    text = "examples:\n  python -m desk run a   # begins\n"
    text += "  python -m desk stop a \\\n      --now\n\n`python -m desk run` goes on."
    assert examples_of("desk run", text) == "examples:\n  python -m desk run a   # begins"
    assert examples_of("desk stop", text) == "examples:\n  python -m desk stop a \\\n      --now"


def test_the_parser_of_a_command_is_had_without_doing_anything():
    def main():
        parser = Command(prog="desk")
        parser.add_argument("--now")
        options = parser.parse_args()
        raise AssertionError(options)

    assert "--now" in parser_of(main).format_help()
    with pytest.raises(AssertionError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["desk"])
        main()
