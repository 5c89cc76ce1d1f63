"""The files of the listener's certificate, as a gateway sees them change."""

import os
import time
from pathlib import Path

import pytest

from extproc.envoy.server.certificate import ListenerCertificate
from extproc.settings.listener import TLSSettings
from extproc.wire.outbound.certificate import dates
from tests.certificates import make


class Place:
    """A directory with the certificate and key of the settings, and others that take their places."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live = folder / "live"
        self.live.mkdir()
        self.files = str(self.live / "tls.crt"), str(self.live / "tls.key")
        self.tls = TLSSettings(certificate=f"file:{self.files[0]}", key=f"file:{self.files[1]}")
        self.watch = ListenerCertificate()

    def rename(self, name: str, *kinds: str) -> None:
        for kind in kinds or ("key", "crt"):
            new = self.live / "new"
            new.write_bytes((self.folder / f"{name}.{kind}").read_bytes())
            new.rename(self.live / f"tls.{kind}")

    def write(self, name: str) -> None:
        for kind in ("key", "crt"):
            file = self.live / f"tls.{kind}"
            file.write_bytes((self.folder / f"{name}.{kind}").read_bytes())
            later = file.stat().st_mtime_ns + 1_000_000  # a coarse clock may give two writes one time
            os.utime(file, ns=(later, later))

    def look(self, times: int = 2) -> str:
        for _ in range(times):
            self.watch.look(self.tls)
        return self.watch.unfit


@pytest.fixture
def place(tmp_path):
    for name in ("one", "two"):
        make(tmp_path, name)
    return Place(tmp_path)


def test_a_change_is_examined_when_the_files_are_still(place):
    place.rename("one")
    assert place.look(1) == ""
    place.rename("two", "key")
    assert place.look(1) == "", "the certificate may follow"
    assert place.look(1) == (
        f"the certificate file:{place.files[0]} does not fit its private key file:{place.files[1]}; "
        "Envoy keeps the certificate that it has"
    )
    assert place.watch.dates == dates(str(place.folder / "one.crt")), "the one in use"
    place.rename("two", "crt")
    assert place.look() == ""
    assert place.watch.dates == dates(place.files[0])


def test_two_renames_are_no_fault(place):
    place.rename("one")
    assert place.look(1) == ""
    place.rename("two", "key")
    assert place.look(1) == ""
    place.rename("two", "crt")
    assert [place.look(1) for _ in range(4)] == [""] * 4


def test_files_that_vanish_or_are_no_certificate_are_named(place):
    place.rename("one")
    place.look()
    Path(place.files[1]).unlink()
    assert place.look().startswith(f"file:{place.files[1]} is missing; Envoy keeps")
    place.rename("one")
    assert place.look() == ""
    (place.folder / "bad.crt").write_text("none")
    place.rename("bad", "crt")
    assert place.look().startswith(f"file:{place.files[0]} has no certificate in PEM; Envoy keeps")


def test_a_certificate_that_was_written_in_place_is_reported_until_it_is_renamed(place):
    place.rename("one")
    place.look()
    place.write("two")
    assert "was written in place, which Envoy does not see" in place.look()
    assert place.watch.dates == dates(str(place.folder / "one.crt"))
    place.rename("two")
    assert place.look() == ""
    place.write("two")  # the same content
    assert place.look() == ""


def test_files_of_another_container_are_not_reported(place):
    assert place.look() == ""
    assert (place.watch.dates, place.watch.remark(time.time())) == (None, "")
    place.rename("one", "crt")  # the certificate alone: its dates are known
    assert place.look() == ""
    assert place.watch.dates == dates(place.files[0])


def test_other_files_of_the_settings_begin_anew(place):
    place.rename("one")
    place.look()
    place.rename("two", "key")
    assert place.look() != ""
    place.watch.look(None)
    assert (place.watch.unfit, place.watch.file, place.watch.dates) == ("", "", None)
    certificate, key = make(place.folder, "three", ends=2)
    place.tls = TLSSettings(certificate=f"file:{certificate}", key=f"file:{key}")
    assert place.look(1) == ""
    assert f"the listener's certificate file:{certificate} ends on" in place.watch.remark(time.time())
