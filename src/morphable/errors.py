"""InputError, the one exception that means "the user's input is wrong": the user gets its message
and exit code 2, but no traceback.
"""


class InputError(ValueError):
    """Raised for wrong input. The message names the file or argument, what was expected and what
    came.

    arguments: names of function arguments that the message puts in backticks, as in "`unit` inch:
    expected mm, cm or m". A program can replace them by its own names: the command line shows its
    flags instead.

    The command line prints the message and exits with code 2; any other exception is a bug (exit
    code 1).
    """

    def __init__(self, message: str, *arguments: str) -> None:
        super().__init__(message)
        self.arguments = arguments
