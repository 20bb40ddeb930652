"""What a put of a transaction was answered with."""

from comity.model import PutResult, TransactionResult

__all__ = ["put_in"]


def put_in(done: TransactionResult) -> PutResult:
    """That of the first put of a transaction which has one."""
    return next(result for result in done.results if isinstance(result, PutResult))
