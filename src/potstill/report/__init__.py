"""result.json and metrics.jsonl in, one self-contained HTML page out."""

from potstill.report.page import write_report

__all__ = ["write_report"]
