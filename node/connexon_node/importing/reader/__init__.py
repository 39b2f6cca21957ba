"""The reader: a process of its own in which all foreign files are read, since what they hold was written by others.

It holds no keys and no database, and sees the file, a scratch folder and the program's own code, nothing else (see
connexon_node.sandbox). What it made of the file comes back as plain tables in the scratch folder, and a short report.
"""
