"""Objects of a bucket, at a store in this process."""

import threading

import pytest

from extproc.wire.outbound.s3 import Bucket, check_name
from extproc.wire.outbound.sigv4 import AwsKey
from tests.doubles.bucket import serve_bucket

KEY = AwsKey("AKID", "secret")


@pytest.fixture
def objects():
    with serve_bucket("AKID") as (endpoint, kept):
        yield Bucket("reports", "eu-west-1", KEY, endpoint), kept


def test_an_object_is_created_once_and_read(objects):
    bucket, kept = objects
    assert bucket.read("a b/c~d.csv") is None
    assert bucket.create("a b/c~d.csv", b"one")
    assert not bucket.create("a b/c~d.csv", b"two")
    assert bucket.read("a b/c~d.csv") == kept["reports/a b/c~d.csv"] == b"one"


def test_of_many_who_create_an_object_one_does(objects):
    bucket, kept = objects
    done = []
    threads = [threading.Thread(target=lambda n=n: done.append((bucket.create("x", b"%d" % n), n))) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [number for created, number in done if created]
    assert kept["reports/x"] == b"%d" % winner


def test_a_refusal_names_its_code_and_shows_no_secret(objects):
    bucket, _ = objects
    with pytest.raises(OSError, match="the bucket reports refuses x: status 403, InvalidAccessKeyId") as found:
        bucket._replace(key=AwsKey("other", "secret")).create("x", b"data")
    assert "secret" not in str(found.value)
    with pytest.raises(OSError, match=r"the bucket reports at 127.0.0.1:1 does not answer"):
        bucket._replace(endpoint="http://127.0.0.1:1").read("x")


@pytest.mark.parametrize("name", ["", "ab", "Upper", "a/b", "a" * 64, "-ab", "a_b"])
def test_a_text_that_is_no_name_of_a_bucket_is_refused(name):
    with pytest.raises(ValueError, match="a bucket's name"):
        check_name(name)
