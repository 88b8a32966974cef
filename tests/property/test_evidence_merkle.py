"""The Merkle tree of RFC 6962, against its published vectors and its own definition (EVD-1)."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement

from exeat.evidence.merkle import (
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
)

LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                 "606162636465666768696a6b6c6d6e6f")
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@requirement("EVD-1")
def test_the_published_roots() -> None:
    frontier = Frontier()
    assert frontier.root() == hashlib.sha256(b"").digest()
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        frontier.append(leaf_hash(leaf))
        assert frontier.root().hex() == root


@requirement("EVD-1")
@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70), st.data())
def test_frontier_proofs_and_definition_agree(leaves: list[bytes], data: st.DataObject) -> None:
    hashes = [leaf_hash(leaf) for leaf in leaves]
    frontier = Frontier()
    for each in hashes:
        frontier.append(each)
    root = root_of(hashes)
    assert frontier.root() == root
    index = data.draw(st.integers(0, len(hashes) - 1))
    check_inclusion(hashes[index], index, len(hashes), inclusion_proof(hashes, index), root)
    old = data.draw(st.integers(1, len(hashes)))
    proof = consistency_proof(hashes, old)
    check_consistency(old, len(hashes), proof, root_of(hashes[:old]), root)
