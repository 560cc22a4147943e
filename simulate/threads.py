"""Threads inside the linear algebra."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """The linear algebra runs on one thread inside.

    Matrices of a hundred rows gain nothing from more, and where cores are busy its threads wait for each other: ten
    times slower was seen. Parallel work is one loop per thread instead.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield
