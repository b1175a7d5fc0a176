"""What `task=convert` does with a Hugging Face folder.

`read_back` compares it with the model, `model_card` describes it, and `push` sends it to the hub.
"""
