"""From texts to unit vectors; the seam is :mod:`msat_core.encoders.base`."""
