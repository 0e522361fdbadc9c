"""The options of the two trainings: one typed field per option, from which the command line is built."""
