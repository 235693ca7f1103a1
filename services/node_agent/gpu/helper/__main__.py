"""`python -m services.node_agent.gpu.helper`."""

from services.node_agent.gpu.helper.app import main

if __name__ == "__main__":
    main()
