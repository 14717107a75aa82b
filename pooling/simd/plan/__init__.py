"""From a problem to a job: geometry tables, cache blocking, the arguments of a kernel."""
