"""Encoders of Hugging Face as a bionemo-run plugin."""
