"""A backend in worker processes, of this or of another interpreter.

This process has `backend`, `keyholder`, `evaluator` and `engine`; a worker has `start`, `worker` and its side's calls
(`holding` or `evaluating`); both have `channel`.
"""
