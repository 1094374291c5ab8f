"""The one exception that means "the user's input is wrong": a clear sentence, exit code 2, no
traceback.
"""


class InputError(ValueError):
    """Bad input: the message names the file or argument, what was expected and what came.

    arguments: names of function arguments that stand in backticks in the message, as in "`unit`
    inch: expected mm, cm or m". A program that has other names for them can show its own: the
    command line writes its flags.

    The command line prints the message and exits with code 2; any other exception is a bug (exit
    code 1).
    """

    def __init__(self, message: str, *arguments: str) -> None:
        super().__init__(message)
        self.arguments = arguments
