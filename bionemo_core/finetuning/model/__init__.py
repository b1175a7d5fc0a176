"""The fine-tuned model as a component: `factory` is light, `params` holds its keys, and `build` makes it with torch."""

from bionemo_core.finetuning.model.factory import finetuned

__all__ = ["finetuned"]
