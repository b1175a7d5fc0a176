"""Networks from megatron-core blocks: attention, layers, embeddings, encoder, heads. Needs torch and megatron-core."""

import bionemo_core.parallel  # noqa: F401 - the first import of megatron-core, without its notes
