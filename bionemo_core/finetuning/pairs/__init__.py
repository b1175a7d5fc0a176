"""Pairs of sequences: the features that a head reads, and the predictions for a table of pairs."""
