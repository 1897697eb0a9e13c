"""Moto's S3 server on a free loopback port, which checks signatures, for as long as a test needs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "caches"
REGION = "eu-west-1"
START_TIMEOUT = 60.0
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A running server with an empty bucket, and the only access key that it takes."""

    endpoint: str
    key_id: str
    secret: str

    def client(self) -> Any:
        """Return a client of AWS's own library."""
        return _client("s3", self.endpoint, self.key_id, self.secret)

    def list_objects(self) -> list[str]:
        """List the objects of the bucket."""
        listed = self.client().list_objects_v2(Bucket=BUCKET)
        return sorted(each["Key"] for each in listed.get("Contents", ()))


@contextmanager
def run_s3_server(directory: Path) -> Iterator[S3Server]:
    """Start a server that logs to *directory*; its data is gone afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    # The first four requests, which make the key and the bucket, are let through without a signature that is known.
    environ = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "4"}
    with (
        (directory / "s3.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environ) as process,
    ):
        try:
            _wait_until_ready(endpoint, process, directory / "s3.log")
            yield _set_up(endpoint)
        finally:
            process.terminate()
            process.wait()


def _set_up(endpoint: str) -> S3Server:
    iam = _client("iam", endpoint, "anybody", "nothing")
    iam.create_user(UserName="ci")
    key = iam.create_access_key(UserName="ci")["AccessKey"]
    iam.put_user_policy(UserName="ci", PolicyName="all", PolicyDocument=json.dumps(POLICY))
    server = S3Server(endpoint=endpoint, key_id=key["AccessKeyId"], secret=key["SecretAccessKey"])
    place = {"LocationConstraint": REGION}
    server.client().create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
    return server


def _client(service: str, endpoint: str, key_id: str, secret: str) -> Any:
    import boto3  # noqa: PLC0415  (slow)

    return boto3.client(
        service, endpoint_url=endpoint, region_name=REGION, aws_access_key_id=key_id, aws_secret_access_key=secret
    )


def _wait_until_ready(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"moto did not start: {log.read_text()}")
