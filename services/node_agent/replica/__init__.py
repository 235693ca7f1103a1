"""The engine process: one for each replica. `python -m services.node_agent.replica` is started by the agent only."""
