"""A guestbook: visitors read entries and write their own."""
