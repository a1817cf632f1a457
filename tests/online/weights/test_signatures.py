"""Where keys are trusted, only what one of them signed counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from freshet.online.weights.announced import announcement, checker
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import BASE, Registry, open_registry
from freshet.stream.config import LearnSettings, Settings
from freshet.stream.errors import ConfigError, RegistryError

serialization = pytest.importorskip(
    "cryptography.hazmat.primitives.serialization", reason="the extra `signing` is not installed"
)
ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key as `openssl` writes them."""
    key = ed25519.Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text("weights")


def test_what_a_trusted_key_signed_counts_and_nothing_else(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    stranger, _ = key_pair(tmp_path, "stranger")
    _, second_public = key_pair(tmp_path, "second")
    folder = tmp_path / "registry"
    unsigned = Registry(folder).add(weights, parent=BASE, created_at_ms=0).version
    foreign = Registry(folder, (), stranger).add(weights, parent=BASE, created_at_ms=0).version
    ours = Registry(folder, (), private).add(weights, parent=BASE, created_at_ms=0).version

    strict = Registry(folder, (second_public, public))
    assert [manifest.version for manifest in strict.list()] == [ours]
    assert strict.verify(ours).version == ours
    with pytest.raises(RegistryError, match="is not signed; `freshet model sign`"):
        strict.verify(unsigned)
    with pytest.raises(RegistryError, match="is signed by none of learn"):
        strict.verify(foreign)
    for version in (unsigned, foreign):
        with pytest.raises(RegistryError):
            checker(strict)(
                announcement(Registry(folder), "promoted", version, 1, Assignment(version))
            )
        with pytest.raises(RegistryError):
            strict.serve(Assignment(version))
    assert str(strict.champion()) == BASE
    # Without trusted keys a signature is one file more, and no matter.
    assert len(Registry(folder).list()) == 3 and Registry(folder).verify(foreign)


def test_a_signature_is_of_this_manifest_and_whole(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    registry = Registry(tmp_path / "registry", (public,), private)
    version = registry.add(weights, parent=BASE, created_at_ms=0).version
    folder = registry.path(version)
    signature = (folder / "manifest.json.sig").read_bytes()
    assert len(signature) == 64
    for wrong in (signature[:-1], signature + b"x", bytes(64), b""):
        (folder / "manifest.json.sig").write_bytes(wrong)
        with pytest.raises(RegistryError, match="signed"):
            registry.manifest(version)
    (folder / "manifest.json.sig").write_bytes(signature)
    assert registry.manifest(version)
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"request_id": ""', b'"request_id": "r"'))
    with pytest.raises(RegistryError, match="signed by none"):
        registry.manifest(version)


def test_a_person_signs_what_was_registered_before(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    registry = Registry(tmp_path / "registry")
    version = registry.add(weights, parent=BASE, created_at_ms=0).version
    strict = Registry(tmp_path / "registry", (public,))
    strict.sign(version, private)
    assert str(strict.serve(Assignment(version))) == version
    (registry.path(version) / "model.safetensors").write_text("altered")
    with pytest.raises(RegistryError, match="altered"):
        strict.sign(version, private)


@pytest.mark.parametrize("name", ["missing.pem", "text.pem", "public.pem"])
def test_a_key_that_is_none_ends_the_start_with_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.pem").write_text("no key")
    private, public = key_pair(tmp_path, "ours")
    (tmp_path / "public.pem").write_bytes(public.read_bytes())
    key = str(tmp_path / name)
    with pytest.raises(ConfigError, match=name):
        open_registry(LearnSettings(registry=tmp_path, signing_key=key))
    trusted = str(private) if name == "public.pem" else key
    with pytest.raises(ConfigError, match="cannot be read"):
        open_registry(LearnSettings(registry=tmp_path, trusted_keys=(trusted,)))


def test_without_the_library_a_key_is_one_clear_error() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path\n"
        "from freshet.online.weights.signatures import check_keys\n"
        "check_keys((), None)\n"
        "try: check_keys((Path('x'),), None)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert done.stdout == (
        "ConfigError signatures need the library cryptography; pip install 'freshet[signing]'\n"
    )


def test_by_default_no_key_is_wanted() -> None:
    assert (Settings().learn.trusted_keys, Settings().learn.signing_key) == ((), "")
