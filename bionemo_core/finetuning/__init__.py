"""Fine-tuning: labels, heads, LoRA, objectives, metrics and validation on downstream tasks."""
