"""Text to tokens and back: tokenizers, chat templates, where they come from."""
