"""The one exception that means "the user's input is wrong": a clear sentence, exit code 2, no
traceback.
"""


class InputError(ValueError):
    """Bad input: the message names the file or argument, what was expected and what came.

    The command line prints the message and exits with code 2; any other exception is a bug (exit
    code 1).
    """
