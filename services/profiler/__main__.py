"""`python -m services.profiler`."""

from services.profiler.app import main

main()
