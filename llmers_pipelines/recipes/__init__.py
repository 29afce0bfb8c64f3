"""Published methods, one short file each, in a folder per family of the survey."""
