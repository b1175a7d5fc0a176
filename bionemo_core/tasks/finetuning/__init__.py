"""What `task=finetune` adds to a training run.

`setting_checks` refuses settings that cannot be used, `model_params` describes the fine-tuned model, `hooks` are the
places in the run where things happen, `frozen_states` computes what a frozen encoder says, `linear_head` solves the
linear head, and `export` writes the model.
"""
