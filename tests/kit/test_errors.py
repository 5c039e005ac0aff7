import errno

import pytest

from kit.errors import BAD_INPUT, INTERRUPTED, OK, UserError, run_command


def code_of(main):
    with pytest.raises(SystemExit) as exit:
        run_command(main)
    return exit.value.code


def raising(error):
    def main():
        raise error

    return main


def test_success_exits_with_0():
    assert code_of(lambda: None) == OK


def test_a_command_may_choose_its_exit_code():
    assert code_of(lambda: 3) == 3


def test_bad_input_is_one_line_and_exit_code_2(capsys):
    assert code_of(raising(UserError("bars.csv line 3:\n  close = -1"))) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.err == "error: bars.csv line 3: close = -1\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "permission denied"), (errno.ENOENT, "no such file")],
)
def test_the_users_machine_at_fault_is_one_line_that_names_the_file(capsys, number, words):
    assert code_of(raising(OSError(number, "raw", "report.html"))) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("error: report.html: ")
    assert words in error


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)
    with pytest.raises(OSError, match="odd"):
        run_command(raising(OSError(errno.EIO, "odd")))


def test_ctrl_c_exits_with_130():
    assert code_of(raising(KeyboardInterrupt())) == INTERRUPTED
