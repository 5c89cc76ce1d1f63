"""Generated from protos/extproc.proto by `make protos`; do not edit."""
