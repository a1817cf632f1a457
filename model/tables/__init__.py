"""From any long table to series that are aligned on their own end."""
