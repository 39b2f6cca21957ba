import contextlib
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from connexon.errors import Misconfigured, Unauthenticated
from connexon.identity import certificates
from connexon.identity.certificates import Authority, TlsKey, spiffe_id
from connexon.identity.keys import SpiffeId, center_id

HOUR = datetime.timedelta(hours=1)
LYON = SpiffeId("alliance", center_id("lyon"))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("alliance")


def _context(
    purpose: ssl.Purpose, trusted: Authority, folder: Path, key: TlsKey, own: x509.Certificate
) -> ssl.SSLContext:
    context = ssl.create_default_context(purpose, cadata=trusted.certificate.public_bytes(Encoding.PEM).decode())
    # What Python 3.13 asks for by default.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if purpose is ssl.Purpose.CLIENT_AUTH:
        context.verify_mode = ssl.CERT_REQUIRED
    path = folder / f"{certificates.serial(own)}.pem"
    path.write_bytes(own.public_bytes(Encoding.PEM) + key.pem())
    context.load_cert_chain(path)
    return context


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> bytes:
    """Perform a whole TLS handshake in memory; return the client's certificate as the server saw it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [asking, answering]
    for _ in range(20):
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            certificate = answering.getpeercert(binary_form=True)
            assert certificate is not None
            return certificate
    raise AssertionError("the handshake does not end")


class TestHandshakes:
    @pytest.mark.parametrize("name", ["hub.example.org", "127.0.0.1", "::1"])
    def test_both_sides_know_each_other_after_a_real_handshake(
        self, authority: Authority, tmp_path: Path, name: str
    ) -> None:
        hub_key, node_key = TlsKey.generate(), TlsKey.generate()
        hub = authority.issue_server(hub_key, ["hub.example.org", "127.0.0.1", "::1"], life=HOUR)
        node = authority.issue_link(node_key.request(), LYON, life=HOUR)
        client = _context(ssl.Purpose.SERVER_AUTH, authority, tmp_path, node_key, node)
        server = _context(ssl.Purpose.CLIENT_AUTH, authority, tmp_path, hub_key, hub)
        assert spiffe_id(certificates.parse(_shake_hands(client, server, name))) == LYON

    @pytest.mark.parametrize("fault", ["hub of another authority", "node of another one", "other name", "expired"])
    def test_a_wrong_certificate_ends_the_handshake(self, authority: Authority, tmp_path: Path, fault: str) -> None:
        other = Authority.create("alliance")
        hub_key, node_key = TlsKey.generate(), TlsKey.generate()
        hub_issuer = other if fault == "hub of another authority" else authority
        node_issuer = other if fault == "node of another one" else authority
        life = -datetime.timedelta(minutes=1) if fault == "expired" else HOUR
        hub = hub_issuer.issue_server(hub_key, ["localhost"], life=HOUR)
        node = node_issuer.issue_link(node_key.request(), LYON, life=life)
        client = _context(ssl.Purpose.SERVER_AUTH, authority, tmp_path, node_key, node)
        server = _context(ssl.Purpose.CLIENT_AUTH, authority, tmp_path, hub_key, hub)
        with pytest.raises(ssl.SSLCertVerificationError):
            _shake_hands(client, server, "elsewhere" if fault == "other name" else "localhost")

    def test_a_node_cannot_pose_as_the_hub_nor_the_hub_as_a_node(self, authority: Authority, tmp_path: Path) -> None:
        key = TlsKey.generate()
        node = authority.issue_link(key.request(), LYON, life=HOUR)
        hub = authority.issue_server(key, ["localhost"], life=HOUR)
        with pytest.raises(ssl.SSLError):
            _shake_hands(
                _context(ssl.Purpose.SERVER_AUTH, authority, tmp_path, key, node),
                _context(ssl.Purpose.CLIENT_AUTH, authority, tmp_path, key, node),
                "localhost",
            )
        with pytest.raises(ssl.SSLError):
            _shake_hands(
                _context(ssl.Purpose.SERVER_AUTH, authority, tmp_path, key, hub),
                _context(ssl.Purpose.CLIENT_AUTH, authority, tmp_path, key, hub),
                "localhost",
            )

    def test_a_link_certificate_issues_no_certificates(self, authority: Authority, tmp_path: Path) -> None:
        key = TlsKey.generate()
        middle = Authority(key, authority.issue_link(key.request(), LYON, life=HOUR))
        forged_key, hub_key = TlsKey.generate(), TlsKey.generate()
        forged = middle.issue_link(forged_key.request(), SpiffeId("alliance", center_id("kyoto")), life=HOUR)
        client = _context(ssl.Purpose.SERVER_AUTH, authority, tmp_path, forged_key, forged)
        (tmp_path / "chain.pem").write_bytes(
            forged.public_bytes(Encoding.PEM) + middle.certificate.public_bytes(Encoding.PEM) + forged_key.pem()
        )
        client.load_cert_chain(tmp_path / "chain.pem")
        hub = authority.issue_server(hub_key, ["localhost"], life=HOUR)
        server = _context(ssl.Purpose.CLIENT_AUTH, authority, tmp_path, hub_key, hub)
        with pytest.raises(ssl.SSLError):
            _shake_hands(client, server, "localhost")


class TestRequests:
    def test_names_in_a_request_are_ignored(self, authority: Authority) -> None:
        key = TlsKey.generate()
        request = (
            x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kyoto")]))
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier("spiffe://alliance/center/kyoto"), x509.DNSName("hub")]
                ),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key.private, hashes.SHA256())
        )
        certificate = authority.issue_link(request.public_bytes(Encoding.DER), LYON, life=HOUR)
        assert spiffe_id(certificate) == LYON
        assert list(certificate.subject) == []
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]

    def test_the_certificate_is_for_the_key_that_asked(self, authority: Authority) -> None:
        key = TlsKey.generate()
        certificate = authority.issue_link(key.request(), LYON, life=HOUR)
        issued = certificate.public_key()
        assert isinstance(issued, ec.EllipticCurvePublicKey)
        assert certificates.public_bytes(issued) == certificates.public_bytes(key.private.public_key())

    @pytest.mark.parametrize(
        "private",
        [
            ec.generate_private_key(ec.SECP384R1()),
            ec.generate_private_key(ec.SECP256K1()),
            rsa.generate_private_key(65537, 2048),
            ed25519.Ed25519PrivateKey.generate(),
        ],
        ids=["P-384", "secp256k1", "RSA", "Ed25519"],
    )
    def test_a_key_of_another_kind_is_refused(self, authority: Authority, private) -> None:  # type: ignore[no-untyped-def]
        digest = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(private, digest)
        with pytest.raises(Unauthenticated) as caught:
            authority.issue_link(request.public_bytes(Encoding.DER), LYON, life=HOUR)
        assert caught.value.code == "certificate.bad_request"
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with pytest.raises(Misconfigured):
            TlsKey.from_pem(pem)

    def test_a_request_that_does_not_prove_its_key_is_refused(self, authority: Authority) -> None:
        request = bytearray(TlsKey.generate().request())
        stranger = TlsKey.generate().request()
        start = request.find(_point(TlsKeyRequest(bytes(request))))
        request[start : start + 65] = _point(TlsKeyRequest(stranger))
        with pytest.raises(Unauthenticated) as caught:
            authority.issue_link(bytes(request), LYON, life=HOUR)
        assert caught.value.code == "certificate.bad_request"

    def test_every_altered_byte_of_a_request_is_refused_or_harmless(self, authority: Authority) -> None:
        key = TlsKey.generate()
        request = key.request()
        own = certificates.public_bytes(key.private.public_key())
        for position in range(len(request)):
            altered = bytearray(request)
            altered[position] ^= 0x55
            try:
                proved = certificates.request_key(bytes(altered))
            except Unauthenticated:
                continue
            assert certificates.public_bytes(proved) == own

    @pytest.mark.parametrize("request_bytes", [b"", b"\x30\x00", b"hello", bytes(1000)])
    def test_what_is_no_request_is_refused(self, request_bytes: bytes) -> None:
        with pytest.raises(Unauthenticated):
            certificates.request_key(request_bytes)


TlsKeyRequest = x509.load_der_x509_csr


def _point(request: x509.CertificateSigningRequest) -> bytes:
    key = request.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return certificates.public_bytes(key)[-65:]


class TestIdentityInACertificate:
    @pytest.mark.parametrize(
        "names",
        [
            None,
            [],
            [x509.DNSName("lyon")],
            [
                x509.UniformResourceIdentifier(str(LYON)),
                x509.UniformResourceIdentifier("spiffe://alliance/center/kyoto"),
            ],
            [x509.UniformResourceIdentifier(str(LYON)), x509.DNSName("lyon")],
            [x509.UniformResourceIdentifier("spiffe://alliance/center/lyon/extra")],
            [x509.UniformResourceIdentifier("https://lyon.example.org")],
        ],
    )
    def test_exactly_one_identity_or_none_is_believed(self, names: list[x509.GeneralName] | None) -> None:
        key = TlsKey.generate().private
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(LYON))]))
            .issuer_name(x509.Name([]))
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now)
            .not_valid_after(now + HOUR)
        )
        if names is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        with pytest.raises(Unauthenticated) as caught:
            spiffe_id(builder.sign(key, hashes.SHA256()))
        assert caught.value.code in ("identity.bad_certificate", "identity.bad_spiffe_id")


class TestReading:
    def test_no_altered_byte_of_a_certificate_escapes_as_another_error(self, authority: Authority) -> None:
        for position in range(len(authority.der)):
            altered = bytearray(authority.der)
            altered[position] ^= 0x55
            with contextlib.suppress(Misconfigured, Unauthenticated):
                spiffe_id(certificates.parse(bytes(altered)))

    def test_a_certificate_is_read_from_der_and_pem_alike(self, authority: Authority) -> None:
        der = authority.der
        assert certificates.parse(der) == certificates.parse(certificates.to_pem(der)) == authority.certificate

    @pytest.mark.parametrize("data", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\n", b"\x30\x82\xff\xff"])
    def test_what_is_no_certificate_is_misconfigured(self, data: bytes) -> None:
        with pytest.raises(Misconfigured):
            certificates.parse(data)

    def test_a_tls_key_comes_back_from_its_pem(self) -> None:
        key = TlsKey.generate()
        assert TlsKey.from_pem(key.pem()).pem() == key.pem()
        with pytest.raises(Misconfigured):
            TlsKey.from_pem(b"no key")

    def test_a_host_name_beyond_ascii_is_explained(self, authority: Authority) -> None:
        with pytest.raises(Misconfigured) as caught:
            authority.issue_server(TlsKey.generate(), ["zürich.example.org"], life=HOUR)
        assert caught.value.code == "certificate.bad_name"

    def test_serial_numbers_are_lower_case_hexadecimal_and_differ(self, authority: Authority) -> None:
        issued = [authority.issue_link(TlsKey.generate().request(), LYON, life=HOUR) for _ in range(5)]
        serials = {certificates.serial(certificate) for certificate in issued}
        assert len(serials) == 5
        assert all(int(text, 16) > 0 and text == text.lower() for text in serials)
