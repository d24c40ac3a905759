"""CLIP's byte-pair tokenizer, read from ``bpe_simple_vocab_16e6.txt.gz`` (which the user supplies).

L tokens.
"""

import gzip
import html
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import regex

from helios.errors import InputError

VOCABULARY = 49408
_MERGES = VOCABULARY - 512 - 2
_WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
_WORD_END = "</w>"


class Tokenizer:
    """Lower-cased text to ids.

    Args:
        merges: pairs of symbols, most frequent first.
    Ids: 256 bytes, the same 256 at a word's end, one per merge, then start and end of text.
    """

    def __init__(self, merges: list[tuple[str, str]]):
        symbols = list(byte_symbols().values())
        symbols += [symbol + _WORD_END for symbol in symbols] + ["".join(pair) for pair in merges]
        self._ids = {symbol: place for place, symbol in enumerate(symbols)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.start = len(symbols)
        self.end = len(symbols) + 1

    @classmethod
    def from_file(cls, path: Path) -> "Tokenizer":
        """Raises: InputError when the file is not that vocabulary."""
        try:
            lines = gzip.decompress(Path(path).read_bytes()).decode("utf-8").split("\n")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: not a gzipped byte-pair vocabulary; fetch bpe_simple_vocab_16e6.txt.gz"
            ) from error
        merges = [line.split() for line in lines[1 : _MERGES + 1]]
        if len(merges) != _MERGES or any(len(pair) != 2 for pair in merges):
            raise InputError(
                f"{path}: holds {len(merges)} merges, {_MERGES} needed; fetch bpe_simple_vocab_16e6.txt.gz"
            )
        return cls([(first, second) for first, second in merges])

    def encode(self, text: str, context: int) -> list[int]:
        """Exactly ``context`` ids, zero padded; a longer text is cut and its last id forced to end-of-text."""
        words = _WORD.findall(cleaned(text))
        ids = [self.start, *(number for word in words for number in self._word(word)), self.end]
        if len(ids) > context:
            ids = [*ids[: context - 1], self.end]
        return ids + [0] * (context - len(ids))

    def _word(self, word: str) -> list[int]:
        table = byte_symbols()
        symbols = [table[byte] for byte in word.encode("utf-8")]
        symbols[-1] += _WORD_END
        while len(symbols) > 1:
            best = min(pairwise(symbols), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            symbols = _joined(symbols, best)
        return [self._ids[symbol] for symbol in symbols]


def cleaned(text: str) -> str:
    """Repaired encoding, HTML entities resolved, one space between words, lower case."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


@lru_cache(maxsize=1)
def byte_symbols() -> dict[int, str]:
    """A printable character for each byte: itself where it is printable, otherwise one from code point 256 up.

    The order of the dictionary is the order of the ids: printable bytes first.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _joined(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    place = 0
    while place < len(symbols):
        if tuple(symbols[place : place + 2]) == pair:
            out.append("".join(pair))
            place += 2
        else:
            out.append(symbols[place])
            place += 1
    return out
