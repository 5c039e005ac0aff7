"""How a text leaves the desk: as a post to a webhook, or by e-mail. Both end within bounds, or raise."""

from __future__ import annotations

import json
import smtplib
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, Literal

from kit.config import setting

SUBJECT = 150  # letters


@dataclass(frozen=True)
class EmailConfig:
    """A mailbox that takes what we send, and who reads it."""

    host: str = setting(help="of the SMTP server")
    sender: str = setting(help="address that mails come from")
    to: list[str] = setting(help="addresses that they go to")
    user: str = setting("", help="name to log in with; its password is PODRACER_SMTP_PASSWORD")
    port: int = setting(587, low=1, high=65535)
    security: Literal["starttls", "tls", "none"] = setting("starttls", help="none: a server on this machine")

    def __post_init__(self) -> None:
        if not self.to:
            raise ValueError("to: expected an address at least")
        if self.user and self.security == "none":
            raise ValueError("security: a password needs starttls or tls")


class NotSent(Exception):
    """Why, without the address that it was for."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected post would be sent as a question, to wherever; so it fails."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def send_webhook(url: str, text: str, timeout: float) -> None:
    """Post {"text": ...}, as Slack, Mattermost and others read it."""
    data = json.dumps({"text": text}).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "podracer"}
    try:
        with _opener.open(urllib.request.Request(url, data, headers), timeout=timeout):
            pass
    except urllib.error.HTTPError as error:
        raise NotSent(f"answered {error.code}") from None
    except urllib.error.URLError as error:
        raise NotSent(f"{type(error.reason).__name__}") from None


def send_email(config: EmailConfig, password: str, subject: str, text: str, timeout: float) -> None:
    message = EmailMessage()
    message["From"], message["To"] = config.sender, ", ".join(config.to)
    message["Subject"] = subject[:SUBJECT]
    message.set_content(text)
    tls = ssl.create_default_context()
    with (
        smtplib.SMTP_SSL(config.host, config.port, timeout=timeout, context=tls)
        if config.security == "tls"
        else smtplib.SMTP(config.host, config.port, timeout=timeout)
    ) as server:
        if config.security == "starttls":
            server.starttls(context=tls)
        if config.user:
            server.login(config.user, password)
        server.send_message(message)
