import gzip

import pytest

from helios.bench.networks import tokens
from helios.bench.networks.tokens import Tokenizer, byte_symbols, cleaned
from helios.errors import InputError

MERGES = [("l", "o"), ("lo", "w</w>"), ("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>")]


@pytest.fixture
def tokenizer():
    return Tokenizer(MERGES)


def test_every_byte_has_its_own_symbol():
    table = byte_symbols()
    assert sorted(table) == list(range(256)) and len(set(table.values())) == 256
    assert table[ord("a")] == "a" and table[ord(" ")] == chr(288)


def test_merges_apply_by_rank_and_specials_follow_them(tokenizer):
    assert (tokenizer.start, tokenizer.end) == (512 + 6, 512 + 7)
    assert tokenizer.encode("Red low CAT", 6) == [518, 512 + 3, 512 + 1, 512 + 5, 519, 0]


def test_a_word_without_merges_is_spelled(tokenizer):
    letters = list(byte_symbols().values())
    assert tokenizer.encode("ox", 4) == [518, letters.index("o"), 256 + letters.index("x"), 519]


def test_a_long_text_is_cut_and_ends_with_the_end_token(tokenizer):
    ids = tokenizer.encode("cat " * 50, 8)
    assert len(ids) == 8 and ids[0] == tokenizer.start and ids[-1] == tokenizer.end and ids[1:7] == [517] * 6


def test_text_is_cleaned():
    assert cleaned("  A &amp;amp; B\n\tC  ") == "a & b c"


def test_equals_transformers_tokenizer(tmp_path, tokenizer):
    from transformers import CLIPTokenizer

    letters = list(byte_symbols().values())
    symbols = letters + [s + "</w>" for s in letters] + ["".join(pair) for pair in MERGES]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    theirs = CLIPTokenizer(vocab={s: i for i, s in enumerate(symbols)}, merges=MERGES)
    for text in ("a red cat's low 12 cats!", "It's  LOW, re-do; naïve café 42", "雪 red"):
        ids = theirs(text)["input_ids"]
        assert tokenizer.encode(text, len(ids)) == ids


def test_the_published_file_format(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "_MERGES", len(MERGES))
    path = tmp_path / "bpe.txt.gz"
    text = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES) + "x y\n"
    path.write_bytes(gzip.compress(text.encode()))
    assert Tokenizer.from_file(path).encode("cat", 3) == [518, 517, 519]
    for content in (b"not gzip", gzip.compress(b"one line"), gzip.compress(text.encode())[:-20]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="bpe_simple_vocab_16e6"):
            Tokenizer.from_file(path)
