"""The command line: checks what was typed, then calls the library.

Torch and other heavy packages are imported inside each command, so that `--help` is quick.
"""
