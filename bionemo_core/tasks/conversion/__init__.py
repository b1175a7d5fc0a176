"""What `task=convert` does with a Hugging Face folder: `read_back` compares it, `model_card` describes it."""
