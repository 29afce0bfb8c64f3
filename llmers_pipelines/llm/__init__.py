"""Engines that answer prompts offline, and the runner that pays for each answer once."""
