"""Linking published scores to the exams' scale."""
