"""A file of rows in, whoever wrote it; columns out, or one line that says where it is wrong."""
