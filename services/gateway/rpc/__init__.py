"""The gateway's gRPC interfaces."""
