"""One optimizer step and all that surrounds it: the module, schedules, gradients, metrics, callbacks."""
