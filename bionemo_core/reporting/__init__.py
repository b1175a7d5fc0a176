"""What a person sees of a run: loggers, metrics, progress, summaries, plots and the HTML page."""
