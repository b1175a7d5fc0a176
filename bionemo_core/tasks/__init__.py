"""What a run does: from a specification to a run folder with its checkpoints, metrics and summary."""
