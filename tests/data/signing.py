"""Signs photos with certificates made here: a root, and a signer below it as C2PA asks for one."""

import datetime
import io
import json
from functools import cache

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def _name(common, organisation):
    pairs = ((NameOID.COMMON_NAME, common), (NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def _certificate(subject, key, issuer, issuer_key, signer):
    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(not signer, None), True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=not signer, crl_sign=not signer, **usage), True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
    )
    if signer:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    return builder.sign(issuer_key, hashes.SHA256())


@cache
def authority(organisation="Test Office"):
    """(chain, root, key), all PEM."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = _name("Test Root", "Root Office")
    root = _certificate(root_name, root_key, root_name, root_key, signer=False)
    leaf = _certificate(_name("Test Signer", organisation), key, root_name, root_key, signer=True)
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return leaf.public_bytes(pem) + root.public_bytes(pem), root.public_bytes(pem).decode(), secret


def jpeg(pixels, **options):
    """uint8 RGB -> the bytes of a JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def sign(data, actions=None, edit=False, remote="", mime="image/jpeg", generator="Test App", title=""):
    """`data` with credentials. edit: `data` becomes the parent. remote: the manifest goes there, not into the file."""
    chain, _, key = authority()
    manifest = {"claim_generator_info": [{"name": generator, "version": "1.2"}], "title": title}
    actions = [created()] if actions is None and not edit else actions
    if actions:
        manifest["assertions"] = [{"label": "c2pa.actions.v2", "data": {"actions": list(actions)}}]
    quick = c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
    builder = c2pa.Builder(json.dumps(manifest), context=quick)
    if edit:
        builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
    if remote:
        builder.set_remote_url(remote)
        builder.set_no_embed()
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, key, None))
    out = io.BytesIO()
    builder.sign(signer, mime, io.BytesIO(data), out)
    return out.getvalue()


def created(kind="digitalCapture", **more):
    """A first action that states a digital source type."""
    return {"action": "c2pa.created", "digitalSourceType": SOURCES + kind} | more


def tampered(data):
    """One byte of the picture changed, near its end; the manifest stands before it."""
    changed = bytearray(data)
    changed[-2000] ^= 255
    return bytes(changed)
