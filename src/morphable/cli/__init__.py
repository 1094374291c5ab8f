"""The command line: checks what was typed, then calls the library. Heavy imports happen inside each
command.
"""
