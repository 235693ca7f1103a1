"""Where requests go: the routing table, channels to node agents, the choice and its retries."""
