"""Linear heads in closed form: `solve` fits one, `several` one of several targets, `baseline` that of a run."""
