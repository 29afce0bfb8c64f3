"""Shipped test equipment: what this project and its plug-ins test themselves with."""
