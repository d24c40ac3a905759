"""The networks of the official tier, written from their description; the weights come from the user or the hub.

vit.py clip.py viclip.py tokens.py    CLIP image tower with the LAION head, ViCLIP, its byte-pair tokenizer
amt/                                  AMT-S frame interpolation (weights CC BY-NC 4.0: never bundled)
weights.py                            finding files, hashing, restricted reading, strict loading
"""
