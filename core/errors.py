"""The one exception for mistakes that a user can make and mend."""


class UserError(Exception):
    """One line for the user: what is wrong, with which value, and the way out.

    The command line prints it without a traceback and exits with code 1.
    """
