"""Completion for shells: `python -m ROOM` followed by Tab. The script knows all words, so that Tab runs no Python."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Callable, Sequence
from functools import partial

from kit.cli import Command, parser_of
from podracer.doctor.command import parser as doctor_parser

ROOMS = ("market", "tournament", "serve", "paper")
EXAMPLES = """examples:
  source <(python -m podracer completion)                          in bash: this shell
  python -m podracer completion >> ~/.bash_completion              in bash: every shell
  autoload bashcompinit; bashcompinit; source <(python -m podracer completion)    in zsh"""
SCRIPT = """# Completion for Podracer's commands: python -m ROOM COMMAND. Made by: python -m podracer completion
_podracer() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} words=
  [[ ${{COMP_WORDS[1]}} == -m ]] || return 0
  if ((COMP_CWORD == 2)); then
    words="{rooms}"
  else
    local command="${{COMP_WORDS[2]}}"
    ((COMP_CWORD > 3)) && command+=" ${{COMP_WORDS[3]}}"
    case $command in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace 2> /dev/null
  return 0
}}
complete -o bashdefault -o default -F _podracer python python3
"""


def main(words: Sequence[str]) -> int:
    text = "print a script that completes the words of every command in bash and zsh"
    Command(prog="python -m podracer completion", description=text, epilog=EXAMPLES).parse_args(words)
    print(script(), end="")
    return 0


def script() -> str:
    found = _all_words()
    cases = "\n".join(f'      "{command}") words="{" ".join(words)}" ;;' for command, words in found.items())
    return SCRIPT.format(rooms=" ".join(sorted({command.split()[0] for command in found})), cases=cases)


def _all_words() -> dict[str, list[str]]:
    """By command; a room alone: the names of its commands."""
    from podracer.command import main as command

    parsers = {room: parser_of(_main_of(room)) for room in ROOMS}
    parsers["podracer"] = parser_of(partial(command, []))
    found = {}
    for room, parser in parsers.items():
        commands = {**_commands(parser)}
        if room == "podracer":
            commands["doctor"] = doctor_parser()
        found[room] = [*sorted(commands), "--help"]
        found |= {f"{room} {name}": _words(one) for name, one in sorted(commands.items())}
    return found


def _main_of(room: str) -> Callable[[], object]:
    main: Callable[[], object] = importlib.import_module(f"{room}.__main__").main
    return main


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Those of subparsers."""
    choices = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(choices[0]) if choices else {}


def _words(parser: argparse.ArgumentParser) -> list[str]:
    """Options and, where a command takes settings, their keys."""
    options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    settings = (parser.epilog or "").partition("\nsettings:")[2]
    keys = dict.fromkeys(re.findall(r"^  ([a-z_.]+)", settings, re.MULTILINE))  # each once, in the order of the help
    return sorted(options) + [f"{key}=" for key in keys]
