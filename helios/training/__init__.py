"""Training: one small loop, and a method per stage of Helios (paper arXiv 2603.04379, sections 3 to 5)."""
