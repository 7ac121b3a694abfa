"""Relevo: a high-availability file server for two Linux servers without shared storage.

The map of the packages and what each may import is in ARCHITECTURE.md.
"""

__version__ = "0.1.0"
