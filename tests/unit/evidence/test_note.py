"""Signed notes and checkpoints to the letter of C2SP, on vectors that are not ours (EVD-1, EVD-4)."""

import stat
from pathlib import Path

import pytest
from requirements import requirement

from exeat.core.errors import Invalid, NotFound
from exeat.evidence.keys import create_master, create_signer, load_master, load_signer
from exeat.evidence.note import Checkpoint, Signer, Verifier, open_checkpoint, open_note

GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqf"
    "qdngotpRZb6KE6RyyBwJnAM=\n"
)  # from golang.org/x/mod/sumdb/note
SIGNER = Signer("exeat.example/gw-1", b"s" * 32)
ROOT = bytes(range(32))


@requirement("EVD-1")
def test_go_and_we_agree_on_key_and_signature() -> None:
    assert str(Verifier.parse(GO_VKEY)) == GO_VKEY
    assert str(Signer.parse(GO_SKEY).verifier) == GO_VKEY
    text = open_note(GO_NOTE.encode(), Verifier.parse(GO_VKEY))
    assert text.startswith("If you think")
    assert Signer.parse(GO_SKEY).sign(text) == GO_NOTE.encode()


@requirement("EVD-1")
def test_a_checkpoint_comes_back_as_it_was_signed() -> None:
    checkpoint = Checkpoint(SIGNER.verifier.name, 42, ROOT)
    assert open_checkpoint(SIGNER.sign(checkpoint.text()), SIGNER.verifier) == checkpoint


@requirement("EVD-4")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("42\n", "43\n"),
        ("42\n", "042\n"),
        ("exeat.example/gw-1\n42", "exeat.example/gw-2\n42"),
        ("— exeat", "- exeat"),
        ("\n\n", "\n"),
        ("42\n", "42\r\n"),
    ],
)
def test_an_altered_checkpoint_is_refused(old: str, new: str) -> None:
    note = SIGNER.sign(Checkpoint(SIGNER.verifier.name, 42, ROOT).text()).decode()
    assert old in note
    with pytest.raises(Invalid):
        open_checkpoint(note.replace(old, new, 1).encode(), SIGNER.verifier)


@requirement("EVD-4")
def test_another_keys_signature_is_ignored_and_a_forged_one_refused() -> None:
    other = Signer(SIGNER.verifier.name, b"t" * 32)
    text = Checkpoint(SIGNER.verifier.name, 1, ROOT).text()
    theirs = other.sign(text)
    with pytest.raises(Invalid, match="not signed by"):
        open_note(theirs, SIGNER.verifier)
    both = SIGNER.sign(text) + theirs.split(b"\n\n")[1]
    assert open_note(both, SIGNER.verifier) == text


@requirement("EVD-4")
def test_a_log_vouches_only_for_its_own_name() -> None:
    note = SIGNER.sign(Checkpoint("exeat.example/other", 1, ROOT).text())
    with pytest.raises(Invalid, match="the checkpoint is of"):
        open_checkpoint(note, SIGNER.verifier)


@requirement("EVD-4")
@pytest.mark.parametrize("vkey", ["", "a+b", GO_VKEY.replace("c74f20a3", "c74f20a4"), "x y+00+AA"])
def test_a_verifier_key_must_belong_to_its_name(vkey: str) -> None:
    with pytest.raises(Invalid):
        Verifier.parse(vkey)


@requirement("EVD-1")
def test_key_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "gw.ed25519"
    signer = create_signer(path, "exeat/gw", lambda n: b"k" * n)
    master = create_master(tmp_path / "keys" / "master.key", lambda n: b"m" * n)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_signer(path).verifier == signer.verifier
    assert load_master(tmp_path / "keys" / "master.key") == master
    with pytest.raises(Invalid, match="exists already"):
        create_signer(path, "exeat/gw", lambda n: b"k" * n)
    path.chmod(0o644)
    with pytest.raises(Invalid, match="read by others"):
        load_signer(path)
    with pytest.raises(NotFound):
        load_signer(tmp_path / "absent")
