"""Training data: a folder of captioned videos becomes latents and text states on disk; the toy world makes its own.

The names below load their module when they are first used.
"""

from helios.lazy_names import lazy_names

_PUBLIC = {
    "Buckets": "helios.data.buckets",
    "Estimate": "helios.data.plan",
    "Identities": "helios.data.identity",
    "Part": "helios.data.preparation",
    "Plan": "helios.data.plan",
    "PrepareConfig": "helios.data.config",
    "PreparedClip": "helios.data.loader",
    "PreparedClips": "helios.data.loader",
    "Progress": "helios.data.look",
    "RELEASED_SIZES": "helios.data.buckets",
    "Result": "helios.data.preparation",
    "Skipped": "helios.data.sources",
    "earlier_plan": "helios.data.preparation",
    "find_sources": "helios.data.sources",
    "identities": "helios.data.identity",
    "make_plan": "helios.data.look",
    "prepare": "helios.data.preparation",
}
__all__ = list(_PUBLIC)
__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
