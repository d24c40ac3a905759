"""The prompt encoder equals the published one bit by bit, caches, releases, and refuses what it cannot read."""

import json
import shutil
import threading

import pytest
import torch

from helios.checkpoints import inspect, load_prompt_encoder
from helios.checkpoints.random import write_random_checkpoint
from helios.errors import InputError
from helios.models.text_encoder import PromptEncoder

PROMPTS = ["A red circle moves", "a fox &amp; snow\n\n at dawn, zebra Ω", "x"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("text") / "base", "base")


@pytest.fixture(params=["helios", "transformers"])
def load(request, checkpoint):
    def helios(dtype):
        return load_prompt_encoder(inspect(checkpoint), "cpu", dtype)

    def transformers(dtype):
        return PromptEncoder.from_directory(checkpoint, dtype, "cpu")

    return {"helios": helios, "transformers": transformers}[request.param]


@pytest.fixture(scope="module")
def pipeline(checkpoint):
    from diffusers import HeliosPipeline

    return HeliosPipeline.from_pretrained(checkpoint)


@torch.no_grad()
def published(pipeline, prompt, negative=""):
    return pipeline.encode_prompt(prompt, negative, max_sequence_length=512)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bit_equal_to_the_published_encoding(checkpoint, load, dtype):
    from diffusers import HeliosPipeline

    pipeline = HeliosPipeline.from_pretrained(checkpoint, dtype=dtype)
    encoder = load(dtype)
    for prompt in PROMPTS:
        positive_1SE, negative_1SE = published(pipeline, prompt)
        ours_1SE = encoder.encode([prompt])
        assert ours_1SE.dtype == dtype and ours_1SE.shape == (1, 512, 32)
        assert torch.equal(ours_1SE, positive_1SE)
        assert torch.equal(encoder.encode([""]), negative_1SE)


def test_prompts_are_padded_to_the_length_of_the_tokenizer(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "short")
    settings_file = tmp_path / "short" / "tokenizer" / "tokenizer_config.json"
    settings_file.write_text(json.dumps(json.loads(settings_file.read_text()) | {"model_max_length": 40}))
    for encoder in (
        PromptEncoder.from_directory(tmp_path / "short", torch.float32, "cpu"),
        load_prompt_encoder(inspect(tmp_path / "short"), "cpu", torch.float32),
    ):
        assert encoder.encode(["x"]).shape == (1, 40, 32)


def test_a_batch_equals_its_prompts_alone(load, pipeline):
    batch_BSE = load(torch.float32).encode(PROMPTS)
    alone_BSE = torch.cat([load(torch.float32).encode([prompt]) for prompt in PROMPTS])
    assert torch.equal(batch_BSE, alone_BSE)
    assert torch.allclose(batch_BSE, published(pipeline, PROMPTS, [""] * 3)[0], atol=1e-5)


def test_rows_beyond_the_end_mark_are_zero_and_the_others_are_not(load):
    encoder = load(torch.float32)
    (state_SE,) = encoder.encode([PROMPTS[0]])
    count = encoder.check(PROMPTS[0])
    assert not state_SE[count:].any() and state_SE[:count].abs().sum(-1).min() > 0


def test_no_gradients_and_no_weights_before_the_first_prompt(load):
    encoder = load(torch.float32)
    encoder.check(PROMPTS[0])
    assert not encoder.loaded
    assert not encoder.encode(PROMPTS[:1]).requires_grad
    assert encoder.loaded


def test_a_prompt_is_encoded_once_and_survives_a_release(load):
    encoder = load(torch.float32)
    first = encoder.encode([PROMPTS[0]])
    encoder.release()
    assert not encoder.loaded
    again = encoder.encode([f"  {PROMPTS[0]}\n"])
    assert torch.equal(first, again) and not encoder.loaded
    again.zero_()
    assert torch.equal(first, encoder.encode([PROMPTS[0]]))
    other = encoder.encode([PROMPTS[1]])
    assert encoder.loaded and torch.equal(other, load(torch.float32).encode([PROMPTS[1]]))


def test_release_frees_the_weights(load):
    import gc
    import weakref

    encoder = load(torch.float32)
    encoder.encode([PROMPTS[0]])
    weights = weakref.ref(encoder._encoder.shared.weight)
    encoder.release()
    gc.collect()
    assert weights() is None


def test_threads_share_one_encoder(load):
    encoder, expected = load(torch.float32), load(torch.float32).encode(PROMPTS)
    results = {}

    def work(index):
        results[index] = encoder.encode([PROMPTS[index % 3]])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(results[index][0], expected[index % 3]) for index in range(6))


def test_check_counts_the_end_mark(load):
    encoder = load(torch.float32)
    assert encoder.check("x") == len(encoder.tokenizer("x").input_ids)
    assert encoder.check("", allow_empty=True) == 1


@pytest.mark.parametrize("prompt", ["", "  \n", "&nbsp;"])
def test_an_empty_prompt_is_refused(load, prompt):
    with pytest.raises(InputError, match="^the prompt is empty: say what the video should show$"):
        load(torch.float32).check(prompt)


def test_a_long_prompt_is_refused_and_the_message_says_how_much_is_used(load):
    encoder = load(torch.float32)
    prompt = " ".join(f"fox {index}" for index in range(300))
    with pytest.raises(InputError, match=r"has \d+ tokens and the text encoder reads 512: shorten it") as refusal:
        encoder.check(prompt)
    characters = int(str(refusal.value).split("only the first ")[1].split(" ")[0])
    whole_words = prompt[:characters].rpartition(" ")[0]
    assert 505 <= encoder.check(whole_words) <= 512
    with pytest.raises(InputError, match="text encoder reads 512"):
        encoder.encode([prompt])


def test_embeddings_are_tied_although_the_released_configuration_denies_it(checkpoint, tmp_path, load):
    """The released config.json says tie_word_embeddings false; a loader that obeys has zero embeddings, grey video."""
    copy = shutil.copytree(checkpoint, tmp_path / "untied")
    file = copy / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": False}))
    expected = load(torch.float32).encode(PROMPTS[:1])
    for encoder in (
        load_prompt_encoder(inspect(copy), "cpu", torch.float32),
        PromptEncoder.from_directory(copy, torch.float32, "cpu"),
    ):
        assert torch.equal(encoder.encode(PROMPTS[:1]), expected)


def test_a_damaged_tokenizer_is_refused(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "damaged")
    (copy / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="the tokenizer in .*damaged/tokenizer' cannot be read: download"):
        load_prompt_encoder(inspect(copy), "cpu", torch.float32)
    with pytest.raises(InputError, match="cannot be read"):
        PromptEncoder.from_directory(copy, torch.float32, "cpu")


def test_a_tokenizer_larger_than_the_text_encoder_is_refused(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "larger")
    file = copy / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": 100}))
    with pytest.raises(InputError, match="its tokenizer knows 154 tokens but its text encoder only 100"):
        load_prompt_encoder(inspect(copy), "cpu", torch.float32)
