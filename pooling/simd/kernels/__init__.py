"""The strategies. A folder holds the forward kernel, the backward kernel and the plan of one."""
