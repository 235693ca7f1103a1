"""`python -m services.node_agent.replica SPEC`."""

import sys

from services.node_agent.replica.app import main

if __name__ == "__main__":
    main(sys.argv[1:])
