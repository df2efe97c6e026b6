"""The certificates of the stack in containers: an authority of its own, and one certificate a server.

`python -m sluice.certificates FOLDER` makes what is missing in a folder of secrets, makes anew what ends soon, and
tells until when each holds; the `init` container does the same at every start. Whoever brings certificates of another
authority puts its certificate at `ca/ca.crt`, without a key, and then nothing is made, only looked at; see docs/tls.md.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from contracts.errors import SetupError
from contracts.settings import HOST
from sluice import kafka_server, tls_front
from sluice.secrets import write_private

CA = "ca/ca.crt"
CA_KEY = "operator/ca.key"
TRUSTSTORE = "ca/truststore.p12"
"""The authority's certificate once more, in the form that Java reads; without a password, since it holds no secret."""
CA_DAYS = 3650
DAYS = 825
RENEW_DAYS = 30
_SKEW = timedelta(minutes=10)
"""Certificates hold from so long ago: a machine's clock may be behind."""


@dataclass(frozen=True)
class Files:
    """Where a server reads its certificate and its key; below the folder of its part."""

    certificate: str
    key: str
    """The same file where the server wants both in one."""


SERVERS: Mapping[str, Files] = {
    "minio": Files("certs/public.crt", "certs/private.key"),
    "postgres": Files("server.crt", "server.key"),
    "kafka": Files(kafka_server.KEYSTORE, kafka_server.KEYSTORE),
    "spark-connect": Files(tls_front.CERTIFICATE, tls_front.CERTIFICATE),
}
"""Part to its files; the part's name is the host name by which the other containers reach it."""
AUTHORITIES = "minio/certs/CAs/ca.crt"
"""Where MinIO looks for whom to trust when it speaks to Kafka."""


def ensure_certificates(folder: Path, now: datetime | None = None) -> dict[str, datetime]:
    """Make the authority and the servers' certificates where they are missing or end within `RENEW_DAYS`.

    Keys are files of mode 0600 of whoever runs this.

    Args:
        folder: the one with a folder of secrets a part.

    Returns:
        File to the end of its certificate.

    Raises:
        SetupError: the authority is another's, and a server's certificate is missing, has ended or is not for its name;
            or a file is no certificate.
    """
    now = now or datetime.now(UTC)
    brought = (folder / CA).exists() and not (folder / CA_KEY).exists()
    if brought:
        authority = _read(folder / CA)
    else:
        authority, key = _ensure_authority(folder, now)
    ends = {CA: authority.not_valid_after_utc}
    for part, files in SERVERS.items():
        path, key_path = folder / part / files.certificate, folder / part / files.key
        problem = _problem(path, key_path, part, now, None if brought else authority)
        if problem and brought:
            raise SetupError(
                f"{path} {problem}, and {CA_KEY} is not there to make another with. Put the server's certificate "
                f"and key into {files.certificate} and {files.key}, or take {CA} away; see docs/tls.md."
            )
        if problem:
            _make(path, key_path, part, authority, key, now)
        ends[f"{part}/{files.certificate}"] = _read(path).not_valid_after_utc
    truststore = folder / TRUSTSTORE
    # It has a random number in it, so it is another each time.
    if not truststore.exists() or authority.public_bytes(serialization.Encoding.DER) not in truststore.read_bytes():
        _write_public(truststore, _truststore(authority))
    _write_public(folder / AUTHORITIES, _pem(authority).encode())
    return ends


def _ensure_authority(folder: Path, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path, key_path = folder / CA, folder / CA_KEY
    if path.exists() and _read(path).not_valid_after_utc - now > timedelta(days=RENEW_DAYS):
        authority, key = _read(path), serialization.load_pem_private_key(key_path.read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == authority.public_key():
            return authority, key
        raise SetupError(f"{key_path} is not the key of {path} that was made with it; see docs/tls.md.")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sluice's own authority")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    authority = (
        _certificate(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    # The key first: an authority's certificate without one would be taken for another's.
    write_private(key_path, _pem_key(key))
    _write_public(path, _pem(authority).encode())
    return authority, key


def _problem(path: Path, key_path: Path, part: str, now: datetime, authority: x509.Certificate | None) -> str | None:
    """What is wrong with a server's certificate.

    Args:
        authority: who makes another when this one ends soon; None when nobody does, so that it is good to its end.
    """
    if not path.exists() or not key_path.exists():
        return "or its key is missing"
    found = _read(path)
    left = found.not_valid_after_utc - now
    if left < timedelta(days=0 if authority is None else RENEW_DAYS):
        return f"ends on {found.not_valid_after_utc:%Y-%m-%d}"
    if authority is not None and found.issuer != authority.subject:
        return "is another authority's"
    if authority is not None and _key_id(found) != _key_id(authority):
        return "is of an authority before this one"
    if part not in _names(found):
        return f"is not for the name {part}"
    return None


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def _key_id(certificate: x509.Certificate) -> bytes | None:
    """Which authority's key has signed it; of the authority itself: which key it has."""
    if certificate.issuer == certificate.subject:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier


def _make(
    path: Path,
    key_path: Path,
    part: str,
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    # By its name from the other containers, and of Postgres from this machine; by the others through a published port.
    names = [x509.DNSName(part), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, part)])
    certificate = (
        _certificate(subject, authority.subject, key.public_key(), now, DAYS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    if path == key_path:
        write_private(path, _pem_key(key) + _pem(certificate))
    else:
        write_private(key_path, _pem_key(key))
        write_private(path, _pem(certificate))


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise SetupError(f"{path} holds no certificate in PEM form: {error}") from error


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _pem_key(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _truststore(authority: x509.Certificate) -> bytes:
    return pkcs12.serialize_java_truststore(
        [pkcs12.PKCS12Certificate(authority, b"sluice")], serialization.NoEncryption()
    )


def _write_public(path: Path, content: bytes) -> None:
    """Write a file that everybody may read, unless it is the same."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o644)


def main(argv: list[str]) -> int:
    """Entry point; 0 all hold, 1 one is missing that cannot be made, 2 wrong usage."""
    if len(argv) != 1 or not Path(argv[0]).is_dir():
        print(
            "usage: python -m sluice.certificates FOLDER  (compose/secrets, or what SECRETS_FOLDER names)",
            file=sys.stderr,
        )
        return 2
    try:
        for name, end in ensure_certificates(Path(argv[0])).items():
            print(f"{name} holds until {end:%Y-%m-%d}")
    except (SetupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
