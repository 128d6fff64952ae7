//! Black-box tests of Millpond live beside this file, one test program a folder.
