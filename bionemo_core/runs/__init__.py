"""The parts of a training run: run folder, resume, device, trainer, loaders, plan and hooks."""
