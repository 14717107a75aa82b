"""Which backend is the fastest for an array: what was measured on this machine decides, else a rule that costs nothing.

Like FFTW's wisdom, but what is known is found by what matters and not by exact sizes, is invalid for exactly what has changed,
and is never made inside a call.
"""

from pooling.tuning.choose import Choice, Ranked, pick
from pooling.tuning.layer import Layer
from pooling.tuning.record import Recording, record
from pooling.tuning.store import WisdomWarning
from pooling.tuning.tuner import Tuned, tune

__all__ = ["Choice", "Layer", "Ranked", "Recording", "Tuned", "WisdomWarning", "pick", "record", "tune"]
