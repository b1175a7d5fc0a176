"""Models that travel: artefacts, the hub, `.nemo` archives and Hugging Face folders."""
