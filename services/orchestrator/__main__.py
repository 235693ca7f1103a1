"""`python -m services.orchestrator`."""

from services.orchestrator.app import main

main()
