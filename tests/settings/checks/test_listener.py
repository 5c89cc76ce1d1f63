"""Lints of the listener's certificate."""

import pytest

from extproc.settings.checks.listener import doubts
from extproc.words.values import offline
from tests.certificates import make


@pytest.fixture
def found(settings):
    def run(certificate, key, more=""):
        text = f"listener: {{tls: {{certificate: 'file:{certificate}', key: 'file:{key}'{more}}}}}"
        return [f"{'.'.join(map(str, where))}: {message}" for where, message in doubts(settings(text))]

    return run


def test_good_files_get_no_warning(found, tmp_path, settings):
    assert found(*make(tmp_path, "a")) == []
    assert list(doubts(settings(""))) == []


def test_files_that_do_not_fit_are_doubted_also_offline(found, tmp_path):
    (one, _), (_, other) = make(tmp_path, "a"), make(tmp_path, "b")
    expected = f"listener.tls.key: the certificate file:{one} does not fit its private key file:{other}"
    assert found(one, other) == [expected]
    with offline():
        assert found(one, other) == [expected]


def test_a_certificate_that_ends_is_doubted(found, tmp_path):
    [text] = found(*make(tmp_path, "a", -80, 3))
    assert text.startswith(f"listener.tls.certificate: file:{tmp_path}/a.crt ends on")
    [text] = found(*make(tmp_path, "b", -80, -3))
    assert text.startswith(f"listener.tls.certificate: file:{tmp_path}/b.crt has ended on")


def test_missing_files_are_doubted_here_and_not_offline(found, tmp_path):
    ca = f", client_ca: 'file:{tmp_path}/ca'"
    texts = found(tmp_path / "c", tmp_path / "k", ca)
    assert [text.partition(":")[0] for text in texts] == [
        f"listener.tls.{name}" for name in ("certificate", "key", "client_ca")
    ]
    with offline():
        assert found(tmp_path / "c", tmp_path / "k", ca) == []


def test_a_file_without_a_certificate_is_doubted(found, tmp_path):
    _, key = make(tmp_path, "a")
    [text] = found(key, key)
    assert text == f"listener.tls.certificate: file:{key} has no certificate in PEM: Envoy does not start with it"


def test_a_volume_may_have_the_certificate_without_its_key(found, tmp_path):
    certificate, _ = make(tmp_path, "a")
    (tmp_path / "..data").mkdir()
    assert found(certificate, tmp_path / "k") == []
