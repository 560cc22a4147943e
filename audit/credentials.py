"""C2PA manifests signed on the spot by a throw-away identity, for demonstrations and tests."""

from __future__ import annotations

import datetime
import io
from dataclasses import dataclass
from typing import Any, Final

SYNTHETIC: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""The IPTC term of media that a trained model made."""


@dataclass(frozen=True)
class Identity:
    """A signing key (elliptic, P-256) and its certificate chain in PEM. Nobody trusts it."""

    key: Any
    chain: str


def make_identity(lifetime: datetime.timedelta) -> Identity:
    """A signing certificate under a root of its own, in the form C2PA asks for, valid from a day ago.

    Source: C2PA 2.1, section 14.5 (certificate profile).
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def name(common: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Throw-away")
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def certificate(common: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = (
            x509.CertificateBuilder().subject_name(name(common)).issuer_name(name("root")).public_key(public)
        )
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + lifetime)
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)

    def usage(*, sign: bool, certify: bool) -> x509.KeyUsage:
        return x509.KeyUsage(sign, False, False, False, False, certify, certify, False, False)

    root = certificate("root", root_key.public_key())
    root = root.add_extension(x509.BasicConstraints(True, None), True)
    root = root.add_extension(usage(sign=False, certify=True), True)
    leaf = certificate("leaf", key.public_key())
    leaf = leaf.add_extension(x509.BasicConstraints(False, None), True)
    leaf = leaf.add_extension(usage(sign=True, certify=False), True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    leaf = leaf.add_extension(issuer, False)
    signed = [builder.sign(root_key, hashes.SHA256()) for builder in (leaf, root)]
    chain = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in signed)
    return Identity(key, chain.decode())


def sign_message(identity: Identity, message: bytes) -> bytes:
    """The ES256 signature of a message, as two numbers of 32 bytes."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    r, s = decode_dss_signature(identity.key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def sign_synthetic(data: bytes, mime: str, identity: Identity, tool: str) -> bytes:
    """The image with a signed manifest that states a trained model made it; pixels are untouched.

    Two calls differ in bytes: manifests carry random identifiers.

    Args:
        data: an encoded image.
        mime: its type, such as `image/png`.
        identity: signs.
        tool: named as the producer.
    """
    import c2pa

    automatic = {f"auto_{verb}_action": {"enabled": False} for verb in ("created", "opened", "placed")}
    settings = {
        "builder": {"thumbnail": {"enabled": False}, "actions": automatic},
        "verify": {"verify_after_sign": False, "remote_manifest_fetch": False},
    }
    action = {"action": "c2pa.created", "digitalSourceType": SYNTHETIC}
    manifest = {
        "title": "image",
        "claim_generator_info": [{"name": tool, "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    out = io.BytesIO()
    with (
        c2pa.Context.from_dict(settings) as context,
        c2pa.Builder(manifest, context=context) as builder,
        c2pa.Signer.from_callback(
            lambda message: sign_message(identity, message), c2pa.C2paSigningAlg.ES256, identity.chain
        ) as signer,
    ):
        builder.sign(signer, mime, io.BytesIO(data), out)
    return out.getvalue()
