"""The run folder and everything around one training: resume, device, trainer, loaders, plan."""
