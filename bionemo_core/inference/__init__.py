"""What a trained model is used for: embedding, decoding, sampling, search in a latent space.

| file | what is in it |
|---|---|
| `philox` | random numbers that belong to a sequence, the same on every device and in every batch |
| `choosing` | top-k, top-p, temperature, and the draw of a token |
| `decoding` | greedy decoding and sampling over `start`, `step`, `select` |
| `cuda_graphs` | a decoding step as a CUDA graph |
| `beam` | beam search over the same |
| `batched` | any method of these over many rows |
| `methods` | v1's five ways to sample around hidden states, with their defaults |
| `sampling` | an opened model as v1's sampling interface |
| `latent_search` | CMA-ES in the latent space, many molecules at once; with `evolution`, `search_workers` |
| `embedding`, `windows` | embeddings and hidden states; sequences longer than the model |
| `outputs`, `outputs_files` | results on the way to one file |
| `scoring`, `scoring_answers` | likelihoods of residues and mutations; answers of a fine-tuned model |
| `sample_metrics` | how many samples are valid, unique and novel |
"""
