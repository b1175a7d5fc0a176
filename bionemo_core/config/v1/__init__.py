"""The spellings of BioNeMo v1: aliases, their rewriting, and YAML files of a user."""
