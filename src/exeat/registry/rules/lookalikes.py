"""REG-6: names that a reader, or a model, could take for another name.

After Unicode UTS #39 (skeletons), reduced to what tool names are written in: compatibility forms
(NFKC: full width, mathematical letters), Cyrillic and Greek letters that look Latin, characters
without width, and digits that look like letters.  Two names with one skeleton are look-alikes.
"""

import unicodedata
from collections.abc import Iterable
from typing import Final

_LOOKS_LIKE: Final = str.maketrans(
    "авекмнорстухіјѕԁԛԝһьҽүзгգոսօաαβγεηικνορτυχωζϲϳɑɡıłøđħ",
    "abekmhopctyxijsdqwhbeyzrqnuoaabyenikvoptuxwzcjagilodh",
)
_SHAPES: Final = str.maketrans(
    {"0": "o", "1": "l", "i": "l", "|": "l", "-": "_", ".": "_", " ": "_"}
)


def skeleton(name: str) -> str:
    """The shape of a name: equal for names that look alike."""
    decomposed = unicodedata.normalize("NFKD", name).casefold()
    visible = "".join(
        c for c in decomposed if unicodedata.category(c) not in ("Cf", "Mn", "Me", "Cc")
    )
    folded = unicodedata.normalize("NFKC", visible).translate(_LOOKS_LIKE).translate(_SHAPES)
    return folded.replace("rn", "m").replace("vv", "w")


def hides_script(name: str) -> bool:
    """Does the name mix ASCII letters with others, or carry invisible characters?"""
    ascii_letter = any(c.isascii() and c.isalpha() for c in name)
    other = any(not c.isascii() for c in name)
    return (ascii_letter and other) or any(unicodedata.category(c) == "Cf" for c in name)


def lookalikes(name: str, others: Iterable[str]) -> tuple[str, ...]:
    """Those of the other names that this one could be taken for (itself excluded), sorted."""
    shape = skeleton(name)
    return tuple(sorted({other for other in others if other != name and skeleton(other) == shape}))
