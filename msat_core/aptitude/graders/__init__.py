"""Graders: what an answer is worth, in [0, 1]. One small file a kind; all behind one Protocol (``base``)."""
