"""Checkpoints of other frameworks: read as data, written in their own form.

settings    a foreign configuration, value by value, each checked as it is taken
yaml_text   YAML to plain values within limits
archive     the members of a v1 `.nemo` archive, read without extracting
pickled     tensors out of a torch file: the only `torch.load` here
merging     tensor- and pipeline-parallel shards of one model
nemo        `.nemo` archives
huggingface folders of config.json and safetensors
vocabulary  SentencePiece models, piece by piece
keys        tables of our names and theirs, and how rows are laid
connector   what a plugin supplies: which models it recognises, and their names and sizes in both worlds
"""
