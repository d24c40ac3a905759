import pytest
import torch

from helios.errors import InputError
from helios.training.clips import LatentClip
from helios.training.seeds import Draws
from helios.training.text import EncodedCaptions, StoredCaptions
from tests.training.methods.test_flow_matching import Letters, text_encoder


def clip(*captions: str, **kwargs) -> LatentClip:
    return LatentClip(latents_CTHW=torch.zeros(4, 18, 8, 8), captions=captions or ("a",), **kwargs)


class Loading:
    """Stands in for a prompt encoder and counts how often its weights are loaded."""

    def __init__(self, max_tokens: int):
        self.tokenizer, self.max_tokens, self.loaded, self.loads = Letters(), max_tokens, False, 0

    def encode(self, prompts):
        self.loads += not self.loaded
        self.loaded = True
        return torch.zeros(len(prompts), self.max_tokens, 6, dtype=torch.float16)

    def release(self):
        self.loaded = False


def test_the_text_encoder_comes_for_a_call_or_stays_for_a_block():
    encoder = Loading(5)
    captions = StoredCaptions(encoder)
    assert captions.encode_prompts(["a", "b"]).dtype == torch.float32
    assert encoder.loads == 1 and not encoder.loaded
    with captions.at_hand():
        for _ in range(3):
            captions.encode_prompts(["a"])
            assert encoder.loaded
    assert encoder.loads == 2 and not encoder.loaded


@pytest.mark.parametrize(
    "captions",
    [StoredCaptions(Loading(8)), EncodedCaptions(tokenizer=Letters(), encoder=text_encoder(), tokens=8)],
    ids=["stored", "encoded"],
)
def test_a_caption_that_is_too_long_is_named_with_its_length(captions):
    captions.check(["short", "", "seven 7"])
    with pytest.raises(InputError, match="has 9 tokens and the text encoder reads 8: shorten 'eight  &amp;8'"):
        captions.check(["short", "eight  &amp;8"])
    with pytest.raises(InputError, match=r"has 201 tokens .* shorten 'x{120}\.\.\.'"):
        captions.check(["x" * 200])


def test_stored_states_are_padded_with_zeros_and_every_wording_is_used():
    texts = (torch.ones(3, 6), torch.full((2, 6), 2.0))
    captions = StoredCaptions(Loading(5))
    states = captions.encode([clip("a", "b", texts_SE=texts)] * 20, Draws(0, 0, tuple(range(20))))
    assert states.shape == (20, 5, 6)
    assert {tuple(row[:, 0].tolist()) for row in states} == {(1, 1, 1, 0, 0), (2, 2, 0, 0, 0)}
    with pytest.raises(InputError, match="no text states"):
        captions.encode([clip("a")], Draws(0, 0, (0,)))


def test_a_changing_clip_is_described_by_the_words_of_its_chunk():
    captions = EncodedCaptions(tokenizer=Letters(), encoder=text_encoder(), tokens=8)
    changing = clip("both", script=(("one",), ("two",)))
    draws = Draws(0, 0, (0, 1))
    got = captions.encode([changing, changing], draws, [0, 1]).detach()
    torch.testing.assert_close(got, captions.encode_prompts(["one", "two"]))


def test_dropout_puts_the_null_caption_in():
    captions = EncodedCaptions(tokenizer=Letters(), encoder=text_encoder(), tokens=8, dropout=0.3)
    got = captions.encode([clip("abc")] * 200, Draws(0, 0, tuple(range(200)))).detach()
    null = torch.isclose(got[:, 0], captions.encode_prompts([""])[0, 0]).all(1)
    assert 0.2 < null.float().mean() < 0.4


def test_a_caption_has_the_same_states_beside_longer_ones():
    captions = EncodedCaptions(tokenizer=Letters(), encoder=text_encoder(), tokens=16)
    alone, beside = captions.encode_prompts(["abc"])[0], captions.encode_prompts(["abc", "a much longer"])[0]
    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-6)
