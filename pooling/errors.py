"""The errors a user of the library can see, all of them a :class:`PoolingError`, which is a ``ValueError``."""


class PoolingError(ValueError):
    """An argument is wrong. The message names it, its value and the remedy."""


class DTypeError(PoolingError, TypeError):
    """An array's dtype is one that pooling, or the backend named, can't do."""


class UnsupportedError(PoolingError, NotImplementedError):
    """The backend named can't do what is asked; the message is its reason."""


class UnknownBackendError(PoolingError, LookupError):
    """No backend has this name."""


class GradientError(PoolingError, AssertionError):
    """A gradient is wrong; the message names the worst cell."""
