"""The room's command. `doctor` comes first, and alone: it says what is missing, so it must need nothing."""

from __future__ import annotations

import sys

from kit.errors import run_command


def main() -> int:
    words = sys.argv[1:]
    if words[:1] == ["doctor"]:
        from podracer.doctor.command import main as doctor

        return doctor(words[1:])
    if words[:1] == ["completion"]:
        from podracer.completion import main as completion

        return completion(words[1:])
    from podracer.command import main as command

    return command(words)


if __name__ == "__main__":
    run_command(main)
