import pytest
import torch

from helios.errors import InputError
from helios.training.clips import LatentClip
from helios.training.seeds import Draws
from helios.training.text import EncodedCaptions, StoredCaptions
from tests.training.methods.test_flow_matching import Letters, text_encoder


def clip(*captions: str, **kwargs) -> LatentClip:
    return LatentClip(latents_CTHW=torch.zeros(4, 18, 8, 8), captions=captions or ("a",), **kwargs)


def test_stored_states_are_padded_with_zeros_and_every_wording_is_used():
    texts = (torch.ones(3, 6), torch.full((2, 6), 2.0))
    captions = StoredCaptions(5, lambda prompts: torch.zeros(len(prompts), 5, 6))
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
