"""The certificates that `init` makes."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from contracts.errors import SetupError
from sluice.certificates import CA, CA_KEY, DAYS, RENEW_DAYS, SERVERS, ensure_certificates, main

NOW = datetime.now(UTC)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("part", SERVERS)
def test_a_client_takes_each_certificate_for_its_names_and_for_no_other(tmp_path: Path, part: str) -> None:
    ensure_certificates(tmp_path)
    files = SERVERS[part]
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / part / files.certificate, tmp_path / part / files.key)
    client = ssl.create_default_context(cafile=str(tmp_path / CA))
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # The default since Python 3.13.
    for name in (part, "localhost", "127.0.0.1"):
        assert handshake(server, client, name) is None
    assert isinstance(handshake(server, client, "elsewhere"), ssl.SSLCertVerificationError)
    assert isinstance(handshake(server, ssl.create_default_context(), part), ssl.SSLCertVerificationError)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> Exception | None:
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(there, server_side=True).close()
        except OSError:
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=name):
            return None
    except ssl.SSLError as error:
        return error
    finally:
        here.close()
        thread.join()


def test_keys_are_their_owner_s_alone(tmp_path: Path) -> None:
    ensure_certificates(tmp_path)
    keys = [tmp_path / CA_KEY, *(tmp_path / part / files.key for part, files in SERVERS.items())]
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


def test_what_holds_is_left_as_it_is(tmp_path: Path) -> None:
    ends = ensure_certificates(tmp_path, NOW)
    assert ends["kafka/server.pem"] - NOW > timedelta(days=DAYS - 1)
    before = contents(tmp_path)
    ensure_certificates(tmp_path, NOW + timedelta(days=DAYS - RENEW_DAYS - 1))
    assert contents(tmp_path) == before


def test_what_ends_soon_is_made_anew_by_the_same_authority(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, NOW)
    before = contents(tmp_path)
    later = NOW + timedelta(days=DAYS - RENEW_DAYS + 1)
    assert min(ensure_certificates(tmp_path, later).values()) > later + timedelta(days=RENEW_DAYS)
    after = contents(tmp_path)
    assert {name for name, content in after.items() if content == before[name]} >= {CA, CA_KEY}
    assert after["kafka/server.pem"] != before["kafka/server.pem"]


def test_a_missing_key_or_another_authority_has_certificates_made_anew(tmp_path: Path) -> None:
    ensure_certificates(tmp_path)
    (tmp_path / "postgres" / "server.key").unlink()
    kafka = (tmp_path / "kafka" / "server.pem").read_bytes()
    ensure_certificates(tmp_path)
    assert (tmp_path / "postgres" / "server.key").exists()
    assert (tmp_path / "kafka" / "server.pem").read_bytes() == kafka
    (tmp_path / CA).unlink()
    ensure_certificates(tmp_path)
    x509.load_pem_x509_certificate((tmp_path / "kafka" / "server.pem").read_bytes()).verify_directly_issued_by(
        x509.load_pem_x509_certificate((tmp_path / CA).read_bytes())
    )


def test_certificates_that_were_brought_are_looked_at_and_never_made(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, NOW)
    (tmp_path / CA_KEY).unlink()
    before = contents(tmp_path)
    ensure_certificates(tmp_path, NOW + timedelta(days=DAYS - 1))
    assert contents(tmp_path) == before
    with pytest.raises(SetupError, match="ends on"):
        ensure_certificates(tmp_path, NOW + timedelta(days=DAYS + 1))
    (tmp_path / "minio" / "certs" / "public.crt").unlink()
    with pytest.raises(SetupError, match="missing"):
        ensure_certificates(tmp_path, NOW)


def test_an_authority_with_the_key_of_another_is_refused(tmp_path: Path) -> None:
    ensure_certificates(tmp_path / "a")
    ensure_certificates(tmp_path / "b")
    (tmp_path / "a" / CA_KEY).write_bytes((tmp_path / "b" / CA_KEY).read_bytes())
    with pytest.raises(SetupError, match="not the key"):
        ensure_certificates(tmp_path / "a")


def test_a_person_is_told_how_long_they_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert "ca/ca.crt holds until 20" in capsys.readouterr().out
    assert main([]) == 2
