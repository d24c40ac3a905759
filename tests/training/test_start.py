import pytest
import torch

from helios.checkpoints import Variant, inspect
from helios.errors import InputError
from helios.models.text_encoder import load_tokenizer
from helios.training.start import SmallModel, SmallText, SmallTransformer, SmallVae, train_tokenizer, unigram_pieces

MODEL = SmallModel(
    vae=SmallVae(width=4, widths=(1, 1, 2), channels=4),
    text=SmallText(width=16, layers=1, heads=2, hidden=16, pieces=200, tokens=32),
    transformer=SmallTransformer(heads=2, head_width=16, rope=(4, 6, 6), hidden=32, layers=2, frequencies=16),
    num_frames=66,
)
CORPUS = ["A red circle moves left.", "A blue circle, moving right over the sea."]


def test_a_small_model_is_a_base_checkpoint(tmp_path):
    MODEL.write(tmp_path / "one", CORPUS)
    MODEL.write(tmp_path / "two", CORPUS)
    info = inspect(tmp_path / "one")
    assert info.variant is Variant.BASE
    assert (info.preset.height, info.preset.width, info.preset.num_frames) == (64, 64, 66)
    assert inspect(tmp_path / "two").identity == info.identity


def test_an_untrained_transformer_predicts_nothing_and_its_blocks_change_nothing_but_by_text():
    model = MODEL.transformer.build(channels=4, text_width=16)
    text = model.encode_text(torch.randn(1, 3, 16), keys=False)
    velocity = model.velocity(torch.randn(1, 4, 9, 8, 8), torch.tensor([500.0]), text, None)
    assert velocity.abs().max() == 0
    velocity.sum().backward()
    assert model.proj_out.weight.grad.abs().max() > 0
    assert all(block.scale_shift_table.abs().max() == 0 for block in model.blocks)


def test_words_are_pieces_and_the_rest_is_spelled(tmp_path):
    size = train_tokenizer(tmp_path, CORPUS, MODEL.text)
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == size <= 200 and tokenizer.model_max_length == 32
    assert tokenizer.tokenize("A blue circle, Moving") == ["▁A", "▁blue", "▁circle", ",", "▁Moving"]
    assert tokenizer.tokenize("zebra")[1:] == list("zebra")
    ids = tokenizer("A red circle").input_ids
    assert ids[-1] == tokenizer.eos_token_id == 1 and tokenizer.pad_token_id == 0
    assert tokenizer.unk_token_id == 2 and 2 not in tokenizer("Any? words: 42!").input_ids


def test_rare_words_leave_first_and_an_empty_corpus_is_refused():
    pieces = dict(unigram_pieces(["often often often", "once"], 3 + 1 + 94 + 2))
    assert "▁often" in pieces and "▁once" not in pieces
    with pytest.raises(InputError, match="no captions"):
        unigram_pieces([], 100)
