"""Private events: authentication, events per user from the journal, settlement events in."""
