"""Teachers: who ranks the items of each training position, exported once and joined by id."""
