"""InputError, the one exception that means "the user's input is wrong": the user gets its message
and exit code 2, but no traceback.
"""

MAX_MESSAGE, KEPT_END = 1000, 300
"""Characters of the longest message, and how many of its end are kept if it is longer: a damaged
file can make a quoted word or line of any length.
"""


class InputError(ValueError):
    """Raised for wrong input. The message names the file or argument, what was expected and what
    came.

    arguments: names of function arguments that the message puts in backticks, as in "`unit` inch:
    expected mm, cm or m". A program can replace them by its own names: the command line shows its
    flags instead.

    A message of more than MAX_MESSAGE characters is shortened in the middle.

    The command line prints the message and exits with code 2; any other exception is a bug (exit
    code 1).
    """

    def __init__(self, message: str, *arguments: str) -> None:
        if len(message) > MAX_MESSAGE:
            message = f"{message[: MAX_MESSAGE - KEPT_END - 5]} ... {message[-KEPT_END:]}"
        super().__init__(message)
        self.arguments = arguments
