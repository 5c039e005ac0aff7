"""Errors that a user can act on, and the exit codes that every command shares."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import ClassVar, NoReturn

OK = 0
BAD_INPUT = 2
INTERRUPTED = 130

# What the user's own machine can get wrong; any other OSError is a bug and keeps its traceback.
_USER_ERRNOS = {
    errno.ENOENT: "no such file or folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than is allowed here",
    errno.EISDIR: "is a folder, expected a file",
    errno.ENOTDIR: "a part of the path is a file, expected a folder",
}


class UserError(Exception):
    """Bad input: one line that names the file or key, the value, and what would be right."""

    code: ClassVar[int] = BAD_INPUT  # the exit code

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command and exit: bad input is one line on stderr and code 2, never a traceback."""
    try:
        code = main() or OK
        sys.stdout.flush()
    except UserError as error:
        _complain(str(error))
        code = error.code
    except BrokenPipeError:  # the reader of our output went away: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    except OSError as error:
        if error.errno not in _USER_ERRNOS:
            raise
        code = _complain(f"{error.filename or 'output'}: {_USER_ERRNOS[error.errno]}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


def _complain(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return BAD_INPUT
