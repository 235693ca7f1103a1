"""OpenAI's HTTP interface: shapes, errors, streams."""
