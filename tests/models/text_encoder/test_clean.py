"""Prompt cleaning equals the published code's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helios.models.text_encoder import clean_prompt


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("  a\n\n red\tfox  ", "a red fox"),
        ("sun &amp;amp; sea", "sun & sea"),
        ("cafÃ© at dawn", "café at dawn"),
        ("a\u3000fox\u00a0runs", "a fox runs"),
        (" \n ", ""),
    ],
)
def test_examples(dirty, clean):
    assert clean_prompt(dirty) == clean


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("&#x1c;amp lt\u2028\x85\x1e 0", max_size=40))
def test_equals_the_published_cleaning(text):
    from diffusers.pipelines.helios.pipeline_helios import prompt_clean

    assert clean_prompt(text) == prompt_clean(text)
