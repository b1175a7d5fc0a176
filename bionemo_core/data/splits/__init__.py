"""Which records are for training, validation and test."""
