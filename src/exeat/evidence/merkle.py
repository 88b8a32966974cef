"""Merkle tree of RFC 6962 section 2.1 and RFC 9162 section 2.1: hashes, frontier, proofs (EVD-1).

A *frontier* holds the roots of the perfect subtrees that make up the tree, largest first; appending
to it costs one or two hashes.  Proofs are cut from the sequence of leaf hashes.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()


class BadProof(ValueError):
    """The proof does not connect the leaf, or the old tree, to the given root."""


def leaf_hash(leaf: bytes) -> bytes:
    """RFC 6962 2.1: SHA-256(0x00 || leaf)."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 2.1: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree.  ``size`` leaves; about a microsecond per append."""

    __slots__ = ("_nodes", "size")

    def __init__(self, size: int = 0, nodes: bytes = b"") -> None:
        if len(nodes) != HASH_BYTES * size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} frontier nodes")
        self.size = size
        self._nodes = [nodes[at : at + HASH_BYTES] for at in range(0, len(nodes), HASH_BYTES)]

    def append(self, hashed: bytes) -> None:
        """Add one leaf hash."""
        nodes, size = self._nodes, self.size
        while size & 1:
            hashed = sha256(b"\x01" + nodes.pop() + hashed).digest()
            size >>= 1
        nodes.append(hashed)
        self.size += 1

    def root(self) -> bytes:
        """RFC 6962 2.1, MTH of all leaves so far."""
        if not self._nodes:
            return EMPTY_ROOT
        root = self._nodes[-1]
        for node in reversed(self._nodes[:-1]):
            root = node_hash(node, root)
        return root

    def pack(self) -> bytes:
        return b"".join(self._nodes)

    def copy(self) -> "Frontier":
        return Frontier(self.size, self.pack())


def root_of(hashes: Sequence[bytes]) -> bytes:
    frontier = Frontier()
    for hashed in hashes:
        frontier.append(hashed)
    return frontier.root()


def _split(size: int) -> int:
    """The largest power of two smaller than ``size``."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_proof(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 9162 2.1.3.1: the path for leaf ``index`` in the tree of ``hashes``."""
    if not 0 <= index < len(hashes):
        raise ValueError(f"no leaf {index} in a tree of {len(hashes)}")
    if len(hashes) == 1:
        return []
    k = _split(len(hashes))
    if index < k:
        return [*inclusion_proof(hashes[:k], index), root_of(hashes[k:])]
    return [*inclusion_proof(hashes[k:], index - k), root_of(hashes[:k])]


def consistency_proof(hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """RFC 9162 2.1.4.1: that the tree of the first ``old_size`` leaves is a prefix of this one."""
    if not 0 < old_size <= len(hashes):
        raise ValueError(f"no tree of {old_size} within {len(hashes)} leaves")
    return _subproof(hashes, old_size, whole=True)


def _subproof(hashes: Sequence[bytes], old_size: int, *, whole: bool) -> list[bytes]:
    if old_size == len(hashes):
        return [] if whole else [root_of(hashes)]
    k = _split(len(hashes))
    if old_size <= k:
        return [*_subproof(hashes[:k], old_size, whole=whole), root_of(hashes[k:])]
    return [*_subproof(hashes[k:], old_size - k, whole=False), root_of(hashes[:k])]


def check_inclusion(
    hashed: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """RFC 9162 2.1.3.2.  Raises BadProof."""
    if not 0 <= index < size:
        raise BadProof(f"leaf {index} is not in a tree of {size}")
    fn, sn, r = index, size - 1, hashed
    for node in proof:
        if sn == 0:
            raise BadProof("the inclusion proof is too long")
        if fn & 1 or fn == sn:
            r = node_hash(node, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, node)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise BadProof("the inclusion proof is too short")
    if r != root:
        raise BadProof("the inclusion proof leads to another root")


def check_consistency(
    old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """RFC 9162 2.1.4.2.  Raises BadProof."""
    if not 0 < old_size <= new_size:
        raise BadProof(f"a tree of {new_size} cannot extend one of {old_size}")
    if old_size == new_size:
        if proof or old_root != new_root:
            raise BadProof("two trees of one size differ")
        return
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise BadProof("the consistency proof is too short")
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for node in path[1:]:
        if sn == 0:
            raise BadProof("the consistency proof is too long")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(node, fr), node_hash(node, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, node)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0 or fr != old_root or sr != new_root:
        raise BadProof("the consistency proof does not lead from the old root to the new one")
