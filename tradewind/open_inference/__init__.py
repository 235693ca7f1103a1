"""Generated from proto/tradewind/open_inference."""
