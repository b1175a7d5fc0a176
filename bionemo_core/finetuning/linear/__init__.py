"""Linear heads in closed form: `solve` fits one, `baseline` does so for a run and its splits."""
