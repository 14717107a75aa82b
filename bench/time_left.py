"""The column of a progress bar that says how long the rest will take."""

from __future__ import annotations

from rich.progress import ProgressColumn
from rich.progress import Task as Bar
from rich.text import Text


class TimeLeft(ProgressColumn):
    """The time that the rest of the work will take, at the rate of what is done.

    Work is counted in the bar's own units, or, where a bar has the fields `cost_done` and `cost`, in those.
    """

    def render(self, task: Bar) -> Text:
        done, total = task.fields.get("cost_done", task.completed), task.fields.get("cost", task.total)
        if not done or task.elapsed is None or total is None:
            return Text("-:-- left", style="progress.remaining")
        return Text(f"{clock(task.elapsed / done * (total - done))} left", style="progress.remaining")


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours if there are any.

    Examples
    --------
    >>> clock(61), clock(3725)
    ('1:01', '1:02:05')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
