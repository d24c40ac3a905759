"""AMT-S, all-pairs multi-field transforms for frame interpolation (Li et al., CVPR 2023), from a written description.

The trained weights are CC BY-NC 4.0: they come from the user, are never bundled, and using them logs the licence.

    sampling.py  correlation volumes and their lookup, backward warping, resizing
    blocks.py    feature encoders, decoders, update blocks
    model.py     the network
"""
