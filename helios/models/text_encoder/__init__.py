"""Prompts to text-encoder states."""

from helios.models.text_encoder.clean import clean_prompt
from helios.models.text_encoder.encoder import PromptEncoder, load_tokenizer, prompt_tokens

__all__ = ["PromptEncoder", "clean_prompt", "load_tokenizer", "prompt_tokens"]
