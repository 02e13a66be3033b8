"""The one exception for mistakes that a user can make and mend."""


class UserError(Exception):
    """One line for the user: what is wrong, with which value, and the way out. Printed alone; exit code 1."""
