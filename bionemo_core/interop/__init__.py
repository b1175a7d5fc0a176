"""Models in other forms than a run's checkpoints: artefacts, `.nemo` archives, Hugging Face folders, downloads.

| file | holds |
|---|---|
| `stored` | a stored model: names and parameters to build it, tensors to fill it |
| `artefact` | the framework's own exchange format |
| `safetensors_files` | tensors in safetensors files, of this framework or others |
| `hub` | downloads of models, cached and verified |
| `connector` | what a plugin supplies to read and write a foreign format |
| `foreign_config`, `keys` | what connectors use: checked configuration values, tables of tensor names |
| `huggingface` | Hugging Face folders |
| `nemo`, `archive`, `yaml_text`, `torch_pickle`, `merging` | v1 `.nemo` archives and the parts of one |
| `source_config` | the configuration of the archive that a model came from, written back unchanged |
| `nemo_models`, `nemo_seq2seq`, `sentencepiece_model` | what the v1 models have in common, for their connectors |
| `resize` | vocabulary and position tables of another size |
| `load_report` | the report of what became of every tensor |
"""
