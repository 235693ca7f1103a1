"""`python -m services.node_agent`."""

from services.node_agent.app import main

if __name__ == "__main__":
    main()
