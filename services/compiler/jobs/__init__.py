"""Work in child processes with limits: parsers, exporters and compilers of foreign models crash, hang and grow."""
