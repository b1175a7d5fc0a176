"""Files of the Observed Antibody Space for bionemo-run."""
