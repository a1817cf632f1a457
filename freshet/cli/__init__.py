"""The command line: words in, exit statuses out; what a command needs is imported when it runs."""
