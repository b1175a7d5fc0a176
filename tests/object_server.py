"""An S3 service on loopback, by moto, for tests of objects; it is skipped where the extra `test` is not whole."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BUCKET = "bucket"
SECRET = "LoopbackSecretKeyThatNobodyMayRead"


class ObjectServer:
    """The service, and a client of it that a test fills it with."""

    def __init__(self, endpoint: str) -> None:
        self.variables = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "loopback",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "no_proxy": "*",
        }
        import boto3

        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="loopback",
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        self._client.create_bucket(Bucket=BUCKET)

    def put(self, name: str, content: bytes, **more: Any) -> str:
        """Write an object; return its address."""
        self._client.put_object(Bucket=BUCKET, Key=name, Body=content, **more)
        return f"s3://{BUCKET}/{name}"

    def delete(self, name: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=name)

    def content(self) -> dict[str, bytes]:
        """Every object, by name."""
        listed = self._client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {one["Key"]: self._client.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read() for one in listed}

    def clear(self) -> None:
        for name in self.content():
            self.delete(name)


@contextmanager
def serve_objects() -> Iterator[ObjectServer]:
    """Run the service on a free port."""
    server_module = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield ObjectServer(f"http://{host}:{port}")
    finally:
        server.stop()
