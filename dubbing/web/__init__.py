"""`dubbing-web`: pages over finished dubs, for the person at this machine. Reads job folders, writes nothing."""
