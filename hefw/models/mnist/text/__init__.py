"""`mnist-text`: digits drawn from prompts; the prompt is embedded at the key holder and goes out encrypted."""
