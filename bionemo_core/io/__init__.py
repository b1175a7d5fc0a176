"""Disk, network and terminal: the only code that touches them with care. Plugins use `data.downloads`.

atomic       files and folders that appear whole or not at all
locks        the one lock between processes
hashing      the only user of hashlib
http         the bytes behind an address
download     files that are fetched, continued, checked and published
progress     a bar on a terminal, lines elsewhere
plots        the only user of matplotlib
exhaustion   what has run out, told from bugs
std_streams  standard output and error that need no reader
"""
