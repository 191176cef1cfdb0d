"""A PPO run as the configuration of other engines, one module for each; `export_job` writes their folders.

`engine_side/` holds the programs that are copied into those folders. They run in the engine's
process and import what only it has, so nothing here imports them.
"""
