"""A search for settings of one method on one data set, by validation alone."""
