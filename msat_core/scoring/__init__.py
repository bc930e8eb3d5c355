"""From an instruction and profiles to probabilities; the seam is :mod:`msat_core.scoring.base`."""
