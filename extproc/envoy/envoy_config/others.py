"""A regular expression for all names but those of a list. RE2 has no negation, and Envoy removes headers that match.
So the list becomes a tree of letters, and the expression names each way to leave it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_END = ""
_ANY = "*"  # at the end of a name: whatever follows

_Tree = dict[str, "_Tree"]


def others(names: Iterable[str]) -> str:
    """Matches each text that is not one of `names`. A name that ends in `*` stands for all that begin like it."""
    tree: _Tree = {}
    for name in names:
        node = tree
        for letter in name.removesuffix(_ANY):
            node = node.setdefault(letter, {})
        node.setdefault(_ANY if name.endswith(_ANY) else _END, {})
    return _outside(tree) or "[^\\s\\S]"


def _outside(tree: _Tree) -> str | None:
    """The texts that leave the tree from here; None where all of them are in it."""
    if _ANY in tree:
        return None
    letters = {letter: child for letter, child in tree.items() if letter != _END}
    ways = [] if _END in tree else [""]
    if letters:
        ways.append(f"[^{''.join(map(re.escape, sorted(letters)))}].*")
    else:
        ways.append(".+")
    ways += [re.escape(letter) + way for letter, child in letters.items() if (way := _outside(child)) is not None]
    return f"(?:{'|'.join(ways)})"
