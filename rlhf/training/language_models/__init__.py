"""Transformers models and their tokenizers: loading them, adapters, conversations as tokens.

Models are Hugging Face folders or hub names. Only safetensors are read and no code that comes with
a model is ever run, because either would let a downloaded file take over the machine.
"""
