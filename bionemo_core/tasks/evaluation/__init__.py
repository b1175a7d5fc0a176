"""What `task=evaluate` does beside reading the data and writing the results.

`evaluation_work` computes on all ranks, `pair_evaluation` is for models of pairs, and `evaluation_pictures` draws.
"""
