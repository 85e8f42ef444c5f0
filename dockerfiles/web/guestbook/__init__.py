"""A guestbook: visitors read what others wrote, and write themselves."""
