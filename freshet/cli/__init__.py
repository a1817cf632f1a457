"""The command line: one function a command, and everything a command needs imported when it
runs.
"""
