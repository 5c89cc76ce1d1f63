"""Certificates in PEM files: their dates, and whether they fit a private key."""

import subprocess
import time

import pytest
from cryptography import x509

from extproc.wire.outbound.certificate import CertificateError, Dates, dates, ending, misfit
from tests.certificates import make

DAY = 86_400.0


@pytest.mark.parametrize("ends", [-1.0, 80.0, 365.0 * 60])  # the last one is beyond 2049: another form of time
def test_dates_are_those_that_another_reader_finds(tmp_path, ends):
    certificate, _ = make(tmp_path, "a", -30, ends)
    told = x509.load_pem_x509_certificate((tmp_path / "a.crt").read_bytes())
    expected = told.not_valid_before_utc.timestamp(), told.not_valid_after_utc.timestamp()
    assert dates(certificate) == expected


def test_the_first_certificate_of_a_chain_counts_and_text_around_it_does_not(tmp_path):
    first, second = (make(tmp_path, name, ends=ends)[0] for name, ends in (("a", 20.0), ("b", 50.0)))
    chain = tmp_path / "chain.crt"
    chain.write_text(f"subject=a\n{(tmp_path / 'a.crt').read_text()}\nsubject=b\n{(tmp_path / 'b.crt').read_text()}")
    assert dates(str(chain)) == dates(first) != dates(second)


def test_what_is_no_certificate_is_named(tmp_path):
    certificate, key = make(tmp_path, "a")
    body = (tmp_path / "a.crt").read_text().splitlines()
    wrong = tmp_path / "wrong"
    with pytest.raises(CertificateError, match=f"file:{wrong} cannot be read"):
        dates(str(wrong))
    for text in (
        "",
        "\n".join([body[0], *body[2:]]),  # cut
        "\n".join([body[0], body[1], body[-1]]),
        f"{body[0]}\nÄÖ\n{body[-1]}",
        f"{body[0]}\nMIIB\n{body[-1]}",
    ):
        wrong.write_text(text)
        with pytest.raises(CertificateError, match=f"file:{wrong} has"):
            dates(str(wrong))
    with pytest.raises(CertificateError, match=f"file:{key} has no certificate"):
        dates(key)
    assert "cannot be used" in misfit(key, certificate)


def test_files_that_do_not_fit_are_named(tmp_path):
    (one, key), (other, another) = make(tmp_path, "a"), make(tmp_path, "b")
    assert (misfit(one, key), misfit(other, another)) == ("", "")
    assert misfit(one, another) == f"the certificate file:{one} does not fit its private key file:{another}"
    assert misfit(one, str(tmp_path / "none")) == "", "a missing file is another matter"
    rsa = tmp_path / "rsa.key"
    command = ["openssl", "genrsa", "-out", str(rsa), "2048"]
    subprocess.run(command, check=True, capture_output=True)
    assert "does not fit" in misfit(one, str(rsa))


def test_a_key_with_a_passphrase_is_named_and_nobody_is_asked(tmp_path):
    certificate, key = make(tmp_path, "a")
    secret = tmp_path / "secret.key"
    command = ["openssl", "pkcs8", "-topk8", "-in", key, "-out", str(secret), "-passout", "pass:x"]
    subprocess.run(command, check=True, capture_output=True)
    assert misfit(certificate, str(secret)) == (
        f"the private key file:{secret} is encrypted: Envoy needs it without a passphrase"
    )


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [
        (-83, 7.1, ""),
        (-83, 6.9, "ends on"),
        (-3, 3, ""),  # of 6 days
        (-5, 1, "in 24 hours: renew it"),
        (-88, 1.9, "in 46 hours: renew it"),
        (-87, 3.2, "in 3 days: renew it"),
        (-90, -1, "has ended on"),
        (1, 90, "is valid only from"),
    ],
)
def test_an_end_within_days_is_said(begins, ends, said):
    now = time.time()
    text = ending(Dates(now + begins * DAY, now + ends * DAY), now, "it")
    assert text.startswith("it ") == bool(said)
    assert said in text
