"""The status page: what the whole system looks like right now."""
