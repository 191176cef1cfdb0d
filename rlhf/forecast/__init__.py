"""The time, memory and disk that a round will need: arithmetic on its settings, on the prompts that
exist and on what a model costs on its device. No database, no torch.

`work` counts what each stage will do, `speeds` prices it, `memory` adds up bytes.
"""
