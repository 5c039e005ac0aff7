"""An object store on loopback that speaks S3: what a test puts there is gone after it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import fsspec
import pytest
import requests
from moto.server import ThreadedMotoServer

BUCKET, SECRET = "podracer", secrets.token_hex(20)


@contextmanager
def bucket() -> Iterator[str]:
    """The address of a folder in a bucket; this process and its children find it and may use it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
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
        server.stop()
