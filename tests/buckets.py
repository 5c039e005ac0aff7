"""An object store on loopback that speaks S3: what a test puts there is gone after it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import fsspec
import pytest
import requests
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

BUCKET, SECRET = "podracer", secrets.token_hex(20)


class Silent(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing: a worker of the suite ends before its last request is told of."""


class OneByOne:
    """moto looks whether an object is there and then puts it; in S3 nobody comes in between."""

    def __init__(self) -> None:
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.turn = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        with self.turn:
            return list(self.moto(environ, start))


@contextmanager
def bucket() -> Iterator[str]:
    """The address of a folder in a bucket; this process and its children find it and may use it."""
    server = make_server("127.0.0.1", 0, OneByOne(), threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    port = server.port
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            requests.post(f"http://127.0.0.1:{port}/moto-api/reset", timeout=10).raise_for_status()  # of servers before
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            yield f"s3://{BUCKET}/runs"
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.shutdown()
        thread.join()
        server.server_close()
