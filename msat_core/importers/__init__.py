"""Bringing evaluations that people already have into records, and leaderboards into coarse profiles.

Each format is one generator of rows. Files are streamed; a row that cannot be read for certain is
counted, listed and left out, never guessed.
"""
