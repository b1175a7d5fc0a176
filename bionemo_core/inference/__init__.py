"""Uses of a trained model: embedding, scoring, decoding, sampling, search in a latent space.

| file | contents |
|---|---|
| `embedding`, `windows` | embeddings, hidden states, logits and likelihoods; windows of long sequences |
| `outputs`, `outputs_files` | embeddings written in parts that survive a crash, and the final file |
| `scoring`, `scoring_answers` | scores of mutations; predictions of fine-tuned models |
| `philox` | random numbers of a sequence, the same on every device and in every batch |
| `choosing` | top-k, top-p, temperature, and the draw of a token |
| `decoding`, `beam` | greedy decoding, sampling and beam search over `start`, `step`, `select` |
| `cuda_graphs` | a decoding step as a CUDA graph |
| `batched` | any decoding method over many rows |
| `methods` | v1's five ways to sample around hidden states, with their defaults |
| `sampling` | v1's sampling interface of an opened model |
| `sample_metrics` | validity, uniqueness and novelty of samples |
| `latent_search`, `evolution`, `search_workers` | CMA-ES in the latent space, for many molecules at once |
"""
