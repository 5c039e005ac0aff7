"""The endpoint's commands: `python -m serve --help`."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.cli import Command, examples_of, file_or_setting
from kit.config import load
from kit.errors import UserError, run_command
from serve.client import Client, Refused, ServeError
from serve.config import LOOPBACK, TOKEN, ServeConfig, tokens
from serve.record import CANARY, CHAMPION, RETIRED, SHADOW
from serve.registry import Registry

EXAMPLES = """examples:
  export PODRACER_TOKEN=$(python -c 'import secrets; print(secrets.token_urlsafe())')
  python -m serve run runs/demo/bundle                  # register it, make it champion, answer on 127.0.0.1:8000
  python -m serve run runs/demo/bundle --plain          # one process without Ray, ready in 2 seconds
  python -m serve run runs/demo/bundle endpoint.freshness=request   # to try it out: old bars are no error
  python -m serve request runs/demo/bundle > body.json  # a request that fits it, of the built-in market's bars
  curl -s -H "Authorization: Bearer $PODRACER_TOKEN" -H 'Content-Type: application/json' \\
       -d @body.json http://127.0.0.1:8000/v1/actions
  python -m serve promote runs/newer/bundle --to shadow # sees the traffic; its answers are logged only
  python -m serve promote runs/newer/bundle --reason 'better on paper'
  python -m serve rollback --reason 'it trades too much'
  python -m serve retire 3f9a --reason 'its market is gone'
  python -m serve list
  python -m serve settings port=8001 > serve.yaml       # for serve deploy, on a cluster

Versions and who moved them when and why are kept in the registry (runs/registry). A running endpoint follows it:
replicas load the new version, verify it and change over, one after the other, and no request is lost.
"""
SETTLED = 60.0  # seconds that a promotion may take to reach every replica
CALM = 2.0  # seconds in which no replica answers with another version
TROUBLED = 8.0  # seconds in which every answer tells of trouble: it is not that of the version before


def main() -> int:
    options = _parser().parse_args()
    return int(options.do(options) or 0)


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C, and follow the registry."""
    config = _config(options)
    tokens()
    if config.host not in LOOPBACK:
        print(f"warning: {config.host} is reached from elsewhere; put TLS in front of it", file=sys.stderr)
    registry = Registry(config.endpoint.registry)
    if options.target:
        entry = registry.register(options.target, _who(), "serve run")
        if registry.champion is None:
            registry.move(entry.version, CHAMPION, _who(), "the first to be served")
        elif registry.champion.version != entry.version:
            print(
                f"{registry.champion.version} stays champion; to change over: python -m serve promote {entry.version}",
                file=sys.stderr,
            )
    if options.plain:
        from serve.plain import serve_plainly

        print(f"serving at http://{config.host}:{config.port}, one process; Ctrl-C stops", flush=True)
        serve_plainly(config, registry)
        return 0
    from serve.deploy import Cluster, changes, wanted

    versions = wanted(registry)
    print("starting Ray Serve, some 20 seconds", file=sys.stderr)
    began = time.monotonic()
    cluster = Cluster(config)
    try:
        with _Stop():
            cluster.deploy(versions)
            cluster.wait()
            url = f"http://{config.host}:{config.port}"
            print(f"serving {versions[CHAMPION][0]} at {url}, ready after {time.monotonic() - began:.1f} s")
            print(f"dashboard {cluster.dashboard}; Ctrl-C stops", flush=True)
            for newer in changes(registry, versions):
                cluster.deploy(newer)
                print(f"changing over: {_told(newer)}", flush=True)
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
    finally:
        cluster.stop()
    return 0


def register(options: argparse.Namespace) -> None:
    entry = _registry(options).register(options.bundle, _who(), options.reason)
    print(f"{entry.version} {entry.state} {entry.name}")


def promote(options: argparse.Namespace) -> int:
    """Change the registry, then see it through where an endpoint runs."""
    config, registry = _config(options), _registry(options)
    if Path(options.version).is_dir():
        entry = registry.register(options.version, _who(), options.reason)
    else:
        entry = registry.entry(options.version)
    if entry.state != options.to:
        entry = registry.move(entry.version, options.to, _who(), options.reason, options.force)
    print(f"{entry.version} is {entry.state} in {registry.folder}")
    return _follow(config, options, entry.version if options.to == CHAMPION else None)


def rollback(options: argparse.Namespace) -> int:
    config, registry = _config(options), _registry(options)
    entry = registry.rollback(_who(), options.reason)
    print(f"{entry.version} is champion again in {registry.folder}")
    return _follow(config, options, entry.version)


def retire(options: argparse.Namespace) -> int:
    config, registry = _config(options), _registry(options)
    entry = registry.move(options.version, RETIRED, _who(), options.reason)
    print(f"{entry.version} is retired in {registry.folder}")
    return _follow(config, options, None)


def show(options: argparse.Namespace) -> None:
    registry = _registry(options)
    print("\n".join(registry.lines()))
    if options.history:
        print()
        for move in registry.history:
            forced = " (forced)" if move.forced else ""
            before = move.before or "nothing"
            print(f"{move.at}  {move.version}  {before} -> {move.after}  {move.who}{forced}  {move.reason}".rstrip())


def request(options: argparse.Namespace) -> None:
    """Made of the built-in market where no bars are given: for trying out, not for trading."""
    from serve.example import example

    print(json.dumps(example(options.bundle, options.bars)))


def settings(options: argparse.Namespace) -> None:
    """For `serve deploy` on a cluster of one's own; every replica reads the registry."""
    import yaml

    from serve.deploy import described

    print(yaml.safe_dump(described(_config(options), {}), sort_keys=False), end="")


# -- seeing a change through


def _follow(config: ServeConfig, options: argparse.Namespace, champion: str | None) -> int:
    if options.dashboard:
        from serve.deploy import Cluster, wanted

        cluster = Cluster(config, options.dashboard)
        cluster.deploy(wanted(_registry(options)))
        cluster.wait()
    token = os.environ.get(TOKEN, "")
    url = options.url or f"http://{config.host}:{config.port}"
    if champion is None or not token:
        return 0
    client = Client(url, token, deadline=5.0)
    if not client.healthy():
        print(f"no endpoint answers at {url}: it is served when one is started")
        return 0
    return _settled(client, champion, url)


def _settled(client: Client, champion: str, url: str) -> int:
    """Until every replica that answers has had the version for a while, or for a while cannot have it."""
    began = since = fine = time.monotonic()
    while (now := time.monotonic()) - began < SETTLED:
        time.sleep(0.05)
        try:
            found = client.ensemble()
        except Refused as error:
            raise UserError(f"{url}: {error}; is {TOKEN} the endpoint's?") from None
        except ServeError as error:
            raise UserError(str(error)) from None
        if not found["trouble"]:
            fine = now
        elif now - fine > TROUBLED:
            print(f"error: not changed over, {found['version']} is served on: {found['trouble']}", file=sys.stderr)
            return 1
        if found["version"] != champion or found["trouble"]:
            since = now
        elif now - since > CALM:
            print(f"{champion} is served at {url}")
            return 0
    print(f"error: {url} still answers with another version after {SETTLED:g} s", file=sys.stderr)
    return 1


def _told(versions: dict[str, list[str]]) -> str:
    return ", ".join(f"{state} {' '.join(there)}" for state, there in versions.items() if there)


class _Stop:
    """SIGTERM is taken as Ctrl-C."""

    def __enter__(self) -> None:
        self.former = signal.signal(signal.SIGTERM, signal.default_int_handler)

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self.former)


def _config(options: argparse.Namespace) -> ServeConfig:
    return load(ServeConfig, options.config, getattr(options, "settings", ()))


def _registry(options: argparse.Namespace) -> Registry:
    return Registry(_config(options).endpoint.registry)


def _who() -> str:
    return os.environ.get("PODRACER_WHO") or getpass.getuser()


# -- the command line


def _parser() -> Command:
    parser = Command(prog="python -m serve", description=__doc__, epilog=EXAMPLES)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Command)

    def command(do: Callable[[argparse.Namespace], Any], name: str, text: str) -> Command:
        made: Command = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=examples_of(f"serve {name}", EXAMPLES)
        )
        made.set_defaults(do=do)
        return made

    def shared(made: Command) -> None:
        made.add_argument("--config", type=Path, metavar="FILE", help="YAML with settings (default: none)")
        made.add_argument("settings", nargs="*", metavar="key=value", help="e.g. port=8001 endpoint.registry=DIR")

    def change(made: Command, reason: bool = False) -> None:
        made.add_argument("--reason", default="", required=reason, help="why; it is kept")
        made.add_argument("--dashboard", default="", metavar="URL", help="of a Ray cluster that serves the registry")
        made.add_argument("--url", default="", help="of the endpoint (default: by host and port)")
        shared(made)

    made = command(run, "run", "serve a bundle, or the registry's champion, until Ctrl-C")
    first = "to register first (default: none)"
    made.add_argument("target", nargs="?", type=file_or_setting, metavar="BUNDLE", help=first)
    made.add_argument("--plain", action="store_true", help="one process without Ray: ready at once, for replays")
    shared(made)
    made = command(register, "register", "take a bundle into the registry, verified")
    made.add_argument("bundle", type=Path, metavar="BUNDLE")
    made.add_argument("--reason", default="")
    shared(made)
    made = command(promote, "promote", "move a version to another state; running endpoints follow")
    made.add_argument("version", metavar="BUNDLE|VERSION", help="a bundle's folder, or the first digits of a version")
    made.add_argument("--to", choices=(CHAMPION, CANARY, SHADOW), default=CHAMPION)
    made.add_argument("--force", action="store_true", help="champion without a verdict or paper record; needs a reason")
    change(made)
    change(command(rollback, "rollback", "undo the last promotion: the former champion again"), reason=True)
    made = command(retire, "retire", "take a version out of service")
    made.add_argument("version", metavar="VERSION")
    change(made, reason=True)
    made = command(show, "list", "all versions, and with --history who moved them when and why")
    made.add_argument("--history", action="store_true")
    shared(made)
    made = command(request, "request", "print a request that fits a bundle")
    made.add_argument("bundle", type=Path, metavar="BUNDLE")
    made.add_argument("--bars", type=Path, metavar="FILE", help="a CSV or Parquet file (default: the built-in market)")
    made = command(settings, "settings", "print a file for `serve deploy`")
    shared(made)
    return parser


if __name__ == "__main__":
    run_command(main)
