"""Results as one folder: report.html, report.json, journal.jsonl."""
