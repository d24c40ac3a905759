"""Prompt cleaning, equal to the published code's: what the model was trained on."""

import html
import re


def clean_prompt(text: str) -> str:
    """Repair wrongly decoded characters, resolve HTML entities (twice: ``&amp;amp;`` occurs), collapse whitespace.

    Several lines become one.
    """
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()
