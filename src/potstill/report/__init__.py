"""result.json and metrics.jsonl in, one self-contained HTML page out; or a model card, and the Hub."""

from potstill.report.card import make_card
from potstill.report.page import write_report
from potstill.report.push import push

__all__ = ["make_card", "push", "write_report"]
