"""Training Model-SAT: homogeneous groups, two stages, calibration on held-out candidates."""
