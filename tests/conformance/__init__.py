"""Tables of cases that more than one test or tool reads, and whole builds compared with what they must give."""
