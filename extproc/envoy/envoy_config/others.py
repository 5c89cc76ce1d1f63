"""A regular expression for all names outside of a list. RE2 has no negation, and Envoy removes headers that match. So
the list becomes a tree of letters, and the expression names each way to leave it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_END = ""
_ANY = "*"  # ends a name that stands for all names with this beginning

_Tree = dict[str, "_Tree"]


def others(names: Iterable[str]) -> str:
    """Matches every text outside of `names`. A name that ends in `*` stands for all names with that beginning."""
    tree: _Tree = {}
    for name in names:
        node = tree
        for letter in name.removesuffix(_ANY):
            node = node.setdefault(letter, {})
        node.setdefault(_ANY if name.endswith(_ANY) else _END, {})
    return _outside(tree) or "[^\\s\\S]"


def _outside(tree: _Tree) -> str | None:
    """Expression of the texts that leave the tree from this node on; None if the tree has all of them."""
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
