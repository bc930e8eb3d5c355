"""The compact scorer: a Gaussian process over exam evidence."""
