"""What programs and the command line talk to Tradewind with.

from tradewind.client import Tradewind

with Tradewind.connect() as tradewind:
    for model in tradewind.compiler.models():
        print(model.name)
"""

from tradewind.client.endpoints import Endpoints, find_endpoints
from tradewind.client.tradewind import Tradewind

__all__ = ["Endpoints", "Tradewind", "find_endpoints"]
