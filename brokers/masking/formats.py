"""Another text of the same form: each digit becomes a digit, each letter one of its kind, all else stays.

The texts of one form are numbered, and a keyed permutation of the numbers picks another: different texts of a form stay
different. Long texts go block by block, each under what came before it.
"""

from __future__ import annotations

import unicodedata
from functools import cache

from brokers.masking.keyed import Keyed
from brokers.masking.permute import Permutation

_BLOCK = 40
_DIGITS = "0123456789"
_LOWER = "abcdefghijklmnopqrstuvwxyz"
_UPPER = _LOWER.upper()
_ASCII = {**dict.fromkeys(_DIGITS, _DIGITS), **dict.fromkeys(_LOWER, _LOWER), **dict.fromkeys(_UPPER, _UPPER)}
_NEIGHBOURS = 128
"""Letters of other scripts become one of their kind among so many code points."""


class KeepFormat:
    """Texts of the same form, under one key."""

    def __init__(self, key: Keyed) -> None:
        self._key = key
        self._permutation = Permutation(key)

    def __call__(self, text: str) -> str:
        """Another text of the form of ``text``."""
        kinds = [_ASCII.get(sign) or _kin(sign) for sign in text]
        changing = [place for place, kind in enumerate(kinds) if len(kind) > 1]
        if not changing:
            return text
        form = "".join(kind[0] if len(kind) > 1 else sign for kind, sign in zip(kinds, text, strict=True))
        tweak = self._key.digest(form.encode("utf-8", "surrogatepass"), size=8)
        signs = list(text)
        for start in range(0, len(changing), _BLOCK):
            block = changing[start : start + _BLOCK]
            size, half, number = 1, 1, 0
            for count, place in enumerate(block, start=1):
                kind = kinds[place]
                size *= len(kind)
                number = number * len(kind) + kind.index(text[place])
                if 2 * count > len(block):
                    half *= len(kind)
            number = self._permutation(number, size, tweak=tweak, half=half)
            for place in reversed(block):
                kind = kinds[place]
                number, which = divmod(number, len(kind))
                signs[place] = kind[which]
            if start + _BLOCK < len(changing):
                seen = "".join(text[place] for place in block)
                tweak = self._key.digest(tweak + seen.encode("utf-8", "surrogatepass"), size=8)
        return "".join(signs)

    def digits(self, text: str) -> str:
        """A number of the same form: as many digits, of which the first is not 0 unless it was."""
        figures = [place for place, sign in enumerate(text) if sign in _DIGITS]
        if not figures:
            return text
        leading = text[figures[0]] != "0" and len(figures) > 1
        size = (9 if leading else 10) * 10 ** (len(figures) - 1)
        number = int("".join(text[place] for place in figures)) - (10 ** (len(figures) - 1) if leading else 0)
        if not leading and text[figures[0]] == "0" and len(figures) > 1:  # 0.25 stays below 1
            size //= 10
        form = "".join("0" if sign in _DIGITS else sign for sign in text)
        moved = self._permutation(number, size, tweak=form.encode() + (b"+" if leading else b""))
        moved += 10 ** (len(figures) - 1) if leading else 0
        signs = list(text)
        for place, figure in zip(figures, str(moved).zfill(len(figures)), strict=True):
            signs[place] = figure
        return "".join(signs)


@cache
def _kin(sign: str) -> str:
    """What a letter or digit beyond ASCII may become; nothing but itself for all else."""
    kind = unicodedata.category(sign)
    if kind not in ("Ll", "Lu", "Lo", "Nd"):
        return sign
    first = ord(sign) // _NEIGHBOURS * _NEIGHBOURS
    near = (chr(code) for code in range(max(first, 128), first + _NEIGHBOURS))
    return "".join(each for each in near if unicodedata.category(each) == kind)
