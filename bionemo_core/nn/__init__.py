"""Networks from megatron-core blocks: attention, layers, embeddings, encoder, heads. Needs torch and megatron-core."""
