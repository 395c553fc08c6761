"""An S3 server on this machine, to try runs in a bucket without an account: moto's, in memory.

    pip install 'evoquant[remote]' 'moto[s3]' flask flask-cors
    python server.py 5000 bucket &
    export AWS_ENDPOINT_URL=http://127.0.0.1:5000 AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any
    evoquant run configs/evolve.yaml --out s3://bucket/runs/evolve
    evoquant report s3://bucket/runs/evolve

It answers one request after the other, so that its conditional PUTs hold whoever races: moto looks before it writes.
"""

import logging
import sys

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server


def main(port: int, bucket: str) -> None:
    """Serve one empty bucket until the process ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(bucket, "us-east-1")
    make_server("127.0.0.1", port, DomainDispatcherApplication(create_backend_app)).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
