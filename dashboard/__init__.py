"""A read-only web page: topics and windows in; the page, its API and server-sent events out."""
